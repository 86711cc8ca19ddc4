//! Nothing but a place for the tests of the whole system, which are in `tests/it`: real programs, real servers, real faults.
