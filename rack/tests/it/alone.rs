//! Tests that want ports of the standards and clocks of their own: each runs anew inside a network namespace that nobody else is in.

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// Whether this process is the one inside. Outside, it starts itself there and checks that it went well. Without root or the tools
/// it fails, unless skipping was asked for.
pub(crate) fn inside(test: &str, tools: &[&str]) -> bool {
    if std::env::var("HX_ALONE").is_ok_and(|name| name == test) {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
        return true;
    }
    let missing: Vec<_> = tools.iter().filter(|tool| !found(tool)).collect();
    if !missing.is_empty() || !nix::unistd::geteuid().is_root() {
        let why = format!("{test} needs root and {missing:?}; install chrony ntpsec-ntpdig rsyslog bsdutils iproute2");
        assert!(std::env::var_os("HOSTLER_TEST_SKIP").is_some(), "{why}");
        println!("SKIPPED: {why}");
        return false;
    }
    let namespace = Namespace(format!("hx-{}-{}", test.replace("::", "-"), std::process::id()));
    run("ip", &["netns", "add", &namespace.0]);
    let status = Command::new("ip")
        .args(["netns", "exec", &namespace.0])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env("HX_ALONE", test)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed inside its namespace; its output is above");
    false
}

struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        Command::new("ip").args(["netns", "del", &self.0]).status().ok();
    }
}

fn found(tool: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|dir| Path::new(dir).join(tool).is_file())
}

/// Runs a program to its end; what it said, on both streams. It must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}
