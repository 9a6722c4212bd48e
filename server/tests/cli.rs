//! The program as a person meets it: what it prints, and the code it exits with.

use std::process::{Command, Output};

fn quorate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(args)
        .env_clear()
        .output()
        .expect("the program is built with its tests")
}

#[test]
fn what_is_asked_for_goes_to_stdout_with_exit_code_0() {
    let cases = [
        (["--version"], "etcd Version: 3.7.3\nGit SHA: "),
        (["--help"], "Usage:\n\n  quorate [flags]\n"),
        (["-h"], "Usage:\n\n  quorate [flags]\n"),
    ];
    for (args, expected) in cases {
        let output = quorate(&args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with(expected), "{args:?}: {text}");
        assert!(output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn what_cannot_be_printed_is_said_by_the_exit_code() {
    let full = || std::fs::File::options().write(true).open("/dev/full").expect("linux has one");
    for (args, code) in [(["--help"], 1), (["--dat-dir=x"], 2)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        let status = command.args(args).env_clear().stdout(full()).stderr(full()).status();
        assert_eq!(status.expect("it runs").code(), Some(code), "{args:?}");
    }
}

#[test]
fn a_refusal_is_one_sentence_on_stderr_with_the_exit_code_of_etcd() {
    let cases: [(&[&str], i32, &str); 3] = [
        (&["--dat-dir=x"], 2, "quorate: there is no flag --dat-dir: did you mean --data-dir?\n"),
        (&["--max-wals", "3.5"], 2, "quorate: --max-wals is \"3.5\", but must be"),
        (&["--election-timeout=300"], 1, "quorate: --election-timeout is \"300\", but must be"),
    ];
    for (args, code, expected) in cases {
        let output = quorate(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with(expected) && text.lines().count() == 1, "{args:?}: {text}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}
