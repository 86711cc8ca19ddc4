use super::*;

fn window(parameters: &Parameters) -> Result<Window, Problem> {
    parameters.window(1_000_000)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn the_window_is_the_last_five_minutes_unless_said() {
    let expected = Window { from_ns: 700_000_000_000, to_ns: 1_000_000_999_999, job: None };
    assert_eq!(window(&Parameters::default()).unwrap(), expected);
}

#[test]
fn a_window_that_ends_before_it_begins_or_begins_twice_is_refused() {
    let backwards = Parameters { since: some("1m"), to: some("2m"), ..Parameters::default() };
    assert!(window(&backwards).is_err());
    let twice = Parameters { since: some("1m"), from: some("2m"), ..Parameters::default() };
    assert!(window(&twice).is_err());
}
