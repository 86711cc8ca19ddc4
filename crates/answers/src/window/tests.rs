use super::*;

fn window(written: &WrittenWindow) -> Result<Window, WindowError> {
    written.read(1_000_000).map(|asked| asked.window)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn the_window_is_the_last_five_minutes_unless_said() {
    let expected = Window { from_ns: 700_000_000_000, to_ns: 1_000_000_999_999, job: None };
    assert_eq!(window(&WrittenWindow::default()).unwrap(), expected);
    let earlier = WrittenWindow { to: some("2m"), ..WrittenWindow::default() };
    assert_eq!(window(&earlier).unwrap().from_ns, 580_000_000_000, "five minutes before its end");
}

#[test]
fn a_window_that_ends_before_it_begins_or_begins_twice_is_refused() {
    let backwards = WrittenWindow { since: some("1m"), to: some("2m"), ..WrittenWindow::default() };
    assert_eq!(window(&backwards), Err(WindowError::Backwards));
    let twice = WrittenWindow { since: some("1m"), from: some("2m"), ..WrittenWindow::default() };
    assert_eq!(window(&twice), Err(WindowError::TwoBeginnings));
}

#[test]
fn a_wait_is_a_duration_within_its_bound_and_nodes_are_names() {
    let waits = |text: &str| WrittenWindow { wait: some(text), ..WrittenWindow::default() }.read(1_000_000);
    assert_eq!(waits("0s").unwrap().wait, Duration::ZERO);
    for text in ["301s", "soon", ""] {
        let refused = waits(text).unwrap_err().to_string();
        assert!(refused.contains("is not a time to wait: give a duration up to 300 s"), "{refused}");
    }
    let of_nodes = WrittenWindow { nodes: some(" a, ,b,a"), ..WrittenWindow::default() };
    assert_eq!(of_nodes.nodes(), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
}

#[test]
fn everything_is_asked_about_where_no_time_is_written() {
    assert_eq!(WrittenWindow::default().extent(1_000_000), Ok(Extent::now(1_000_000)));
    let since = WrittenWindow { since: some("1m"), ..WrittenWindow::default() };
    assert_eq!(since.extent(1_000_000).unwrap().from_ms, Some(940_000));
}
