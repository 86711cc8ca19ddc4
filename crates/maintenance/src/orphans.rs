//! Objects of a table that no snapshot needs: found by reachability and age, and removed.
