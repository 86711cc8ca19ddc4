use super::*;

#[test]
fn a_crate_that_is_compiled_twice_is_named() {
    let build = "arrow v1|ipc\nahash v1|std\nahash v1|std (*)\n";
    let test = "arrow v1|ipc\nahash v1|default,std (*)\nproptest v1|std\n";
    assert_eq!(differences(build, test), ["ahash v1 is built with [std] but tested with [default,std]"]);
    assert_eq!(differences(build, build), Vec::<String>::new());
}
