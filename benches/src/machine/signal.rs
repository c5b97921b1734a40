//! The runner's signals (`op=signal`) as multipart forms, field by field in the runner's order.

use std::{net::Ipv4Addr, time::Duration};

use super::{
    http::{self, Agent, Request},
    session::{Script, Session},
};
use crate::hardware::{self, Hardware};

/// What is said; scripts by their place in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Begun(usize),
    /// With its run time.
    Ended(usize, Duration),
    /// The heartbeat.
    Alive,
    /// All scripts have passed.
    AllWell,
}

/// The signal as a request; `None`: no such script.
pub(super) fn request(
    session: &Session,
    said: Signal,
    hardware: &Hardware,
    (cmdline, ip): (&str, Ipv4Addr),
    nonce: u64,
    now: i64,
) -> Option<Request> {
    let boundary = format!("{nonce:040x}");
    let mut form = Form { boundary: &boundary, bytes: Vec::with_capacity(1_024) };
    let script = |number: usize| session.scripts.get(number);
    match said {
        Signal::Begun(number) => {
            let script = script(number)?;
            form.head("WORKING", &format!("Starting {}", script.name), Some(script));
        }
        Signal::Ended(number, time) => {
            let script = script(number)?;
            form.head("WORKING", &format!("Finished {}: exit status 0", script.name), Some(script));
            form.field("exit_status", "0");
            form.field("runtime", &format!("{:.3}", time.as_secs_f64()));
            let (output, _) = hardware::output(hardware, &script.name, cmdline, ip);
            form.file(&script.name, &output);
            form.file(&format!("{}.out", script.name), &output);
            form.file(&format!("{}.err", script.name), b"");
        }
        Signal::Alive => form.head("WORKING", "", None),
        Signal::AllWell => form.head("OK", "", None),
    }
    let body = form.finish();
    let content_type = format!("multipart/form-data; boundary={boundary}");
    let url = format!("{}2012-03-01/", session.metadata_url);
    http::post(
        &url,
        Agent::Runner,
        &session.key.sign(&Agent::Runner.nonce(nonce, now), now),
        Some(&content_type),
        &body,
    )
}

struct Form<'a> {
    boundary: &'a str,
    bytes: Vec<u8>,
}

impl Form<'_> {
    fn head(&mut self, status: &str, error: &str, script: Option<&Script>) {
        self.field("op", "signal");
        self.field("status", status);
        self.field("error", error);
        if let Some(script) = script {
            self.field("name", &script.name);
            self.field("script_result_id", &script.script_result_id.to_string());
            self.field("script_version_id", &script.script_version_id.to_string());
        }
    }

    fn field(&mut self, name: &str, value: &str) {
        self.part(name, "", value.as_bytes());
    }

    fn file(&mut self, name: &str, content: &[u8]) {
        let kind = format!("; filename=\"{name}\"\r\nContent-Type: application/octet-stream");
        self.part(name, &kind, content);
    }

    fn part(&mut self, name: &str, more: &str, content: &[u8]) {
        let head = format!("--{}\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n", self.boundary);
        self.bytes.extend_from_slice(head.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.extend_from_slice(b"\r\n");
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        self.bytes
    }
}
