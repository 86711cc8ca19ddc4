//! What values mean, where the engine alone would be silently wrong (ADR 28): numbers that do not fit are errors, zero
//! and NaN are one each, guards protect what they stand before, literals are exact, patterns and zones are checked, and
//! what cannot be written is refused.

mod arithmetic;
mod averages;
mod common;
mod expressions;
mod floats;
mod guards;
mod instants;
mod kinds;
mod lengths;
mod local_times;
mod multiples;
mod patterns;
mod promise;
mod sums;
mod syntax;
mod text;
mod times;
mod widths;
mod writable;

use std::sync::Arc;

use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion::optimizer::{Analyzer, AnalyzerRule};

pub(crate) use arithmetic::ExactArithmetic;
pub(crate) use guards::{GuardedPlanner, is_safe, unordered_casts_hidden};
pub(crate) use instants::per_second;
pub(crate) use kinds::{is_decimal, scale};
pub(crate) use local_times::{LocalTimes, NO_OFFSET};
pub(crate) use patterns::bad_pattern;
pub(crate) use promise::held;
pub(crate) use syntax::{call, check_literals, rewrite};
pub(crate) use text::padding;
pub(crate) use writable::check as check_writable;

/// The rules that every statement is analyzed by: types made equal, the engine's own, then those of this module over
/// typed expressions.
pub(crate) fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![
        // `grouping(x)` is matched with the keys as they are written, before a rule changes one of the two.
        Arc::new(ResolveGroupingFunction::new()),
        // Before the type coercion of the engine, which then finds equal types and has nothing left to round.
        Arc::new(common::CommonTypes),
    ];
    rules.extend(Analyzer::new().rules);
    // These read the types of expressions, which are final from here on.
    rules.push(Arc::new(arithmetic::ExactSigns::new()));
    rules.push(Arc::new(patterns::Patterns));
    rules.push(Arc::new(guards::KeepGuards));
    rules.push(Arc::new(floats::OneZeroOneNan::new()));
    rules
}

/// The scalar functions of a session: these, wrapped where they have a promise, and those that statements are rewritten
/// to.
pub(crate) fn scalar_functions(all: Vec<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let mut functions: Vec<Arc<ScalarUDF>> = all.into_iter().map(held).collect();
    functions.extend(text::functions());
    functions.push(syntax::function());
    functions.push(times::function());
    functions
}

/// The aggregate functions of a session: the engine's, but for sums and averages, which are exact here.
pub(crate) fn aggregate_functions() -> Vec<Arc<AggregateUDF>> {
    let mut all = SessionStateDefaults::default_aggregate_functions();
    all.retain(|function| !["avg", "sum"].contains(&function.name()));
    all.extend([averages::function(), sums::function()]);
    all
}
