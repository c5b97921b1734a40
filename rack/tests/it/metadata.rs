//! The metadata service as decisions: what cloud-init asks in its order, signatures, signals, status events, and input that is wrong. No socket.

use std::net::IpAddr;

use actix_web::http::Method;
use proptest::prelude::*;
use rack::{
    http::metadata::{Answer, Body, Progress, Request, Response, admit, answer},
    leases::LeaseTable,
    plan::Snapshot,
};
use schema::{
    boot::{BodyRef, Image, Sha256},
    id::{AttemptId, ResultId, SubnetId},
    messages::report::Fact,
    net::MacAddr,
    plan::{BootPurpose, Lease, NodeKey, Plan, Ticket, TicketBoot},
    script::{INLINE_LIMIT, OUTPUT_LIMIT, ScriptRef, ScriptType, SignalStatus},
    secret::Secret,
    time::Timestamp,
};

pub(crate) const NOW: Timestamp = Timestamp(1_795_366_923_000_000);
pub(crate) const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x77, 0, 1]);

pub(crate) fn body(bytes: &[u8]) -> BodyRef {
    BodyRef { sha256: Sha256::of(bytes), len: bytes.len() as u64 }
}

pub(crate) fn script(id: i64, name: &str, script_type: ScriptType, text: &[u8]) -> ScriptRef {
    ScriptRef {
        name: name.into(),
        script_type,
        script_result_id: ResultId(id),
        script_version_id: 100 + id,
        timeout_seconds: 30,
        parallel: 0,
        hardware_type: 0,
        may_reboot: false,
        packages: "{}".into(),
        body: body(text),
    }
}

/// A ticket of machine `abc123`, void at `expires`.
pub(crate) fn ticket(scripts: Vec<ScriptRef>, expires: Timestamp) -> Ticket {
    let image = Image {
        name: "debian/bookworm/amd64/generic".into(),
        arch: "amd64".into(),
        kernel: body(b"k"),
        initrd: body(b"i"),
        squashfs: None,
        kernel_params: String::new(),
    };
    let key = NodeKey {
        consumer_key: "ck".into(),
        token_key: "tk".into(),
        token_secret: Secret::new("s3cret-of-the-node".into()),
    };
    let boot = TicketBoot {
        image,
        kernel_opts: String::new(),
        key,
        user_data: body(b"#!/bin/sh\n"),
        scripts,
        ssh_keys: Vec::new(),
        stay_on: false,
    };
    Ticket {
        machine: "abc123".parse().unwrap(),
        attempt: AttemptId(3),
        purpose: BootPurpose::Commissioning,
        macs: vec![MAC],
        hostname: "fox".into(),
        domain: "maas".into(),
        arch: "amd64".into(),
        expires,
        boot: Some(boot),
    }
}

pub(crate) fn lease(ip: &str, mac: MacAddr, expires: Timestamp) -> Lease {
    Lease { subnet: SubnetId(1), ip: ip.parse().unwrap(), mac, hostname: None, granted: NOW, expires }
}

struct Rack {
    snapshot: Snapshot,
    leases: LeaseTable,
    progress: Progress,
}

fn rack_with(ticket: Ticket) -> Rack {
    let leases = LeaseTable::default();
    leases.put(lease("10.77.0.80", MAC, Timestamp(NOW.0 + 600_000_000)));
    leases.put(lease("10.77.0.81", MacAddr([2; 6]), Timestamp(NOW.0 + 600_000_000)));
    let subnet = serde_json::from_str(r#"{"id": 1, "cidr": "10.77.0.0/24"}"#).unwrap();
    let plan = Plan { tickets: vec![ticket], subnets: vec![subnet], ..Plan::default() };
    Rack { snapshot: Snapshot::new(plan), leases, progress: Progress::default() }
}

fn rack() -> Rack {
    let scripts = vec![
        script(12, "50-maas-01-commissioning", ScriptType::Commissioning, b"a"),
        script(11, "20-first", ScriptType::Commissioning, b"b"),
        script(13, "memtester", ScriptType::Testing, b"c"),
    ];
    rack_with(ticket(scripts, Timestamp(NOW.0 + 3_600_000_000)))
}

fn signed(stamp: i64, secret: &str) -> String {
    format!(
        "OAuth realm=\"\", oauth_nonce=\"n1\", oauth_timestamp=\"{stamp}\", oauth_version=\"1.0\", oauth_signature_method=\"PLAINTEXT\", oauth_consumer_key=\"ck\", oauth_token=\"tk\", oauth_signature=\"%26{secret}\""
    )
}

impl Rack {
    fn ask(&self, method: &Method, url: &str, sent: (&str, Option<&str>, Option<&str>, &[u8])) -> Answer {
        let (from, authorization, content_type, body) = sent;
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let path = format!("/MAAS/metadata{path}");
        let from: IpAddr = from.parse().unwrap();
        let host = "10.77.0.1:5248";
        let proxy = Some(([0, 0, 0, 0], 8_000).into());
        let request = Request { method, path: &path, query, from, host, proxy, authorization, content_type, body };
        // As the skin does: the head first, then the whole.
        if let Err(refusal) = admit(&request, &self.snapshot, NOW) {
            return *refusal;
        }
        answer(&request, &self.snapshot, &self.leases, &self.progress, NOW)
    }

    fn get(&self, url: &str) -> Answer {
        let header = signed(NOW.seconds(), "s3cret-of-the-node");
        self.ask(&Method::GET, url, ("10.77.0.80", Some(&header), None, &[]))
    }

    fn post(&self, url: &str, content_type: &str, body: &[u8]) -> Answer {
        let header = signed(NOW.seconds(), "s3cret-of-the-node");
        self.ask(&Method::POST, url, ("10.77.0.80", Some(&header), Some(content_type), body))
    }

    fn form(&self, body: &str) -> Answer {
        self.post("/2012-03-01/", "application/x-www-form-urlencoded", body.as_bytes())
    }
}

fn text(response: &Response) -> &str {
    match &response.body {
        Body::Bytes(bytes) => std::str::from_utf8(bytes).unwrap(),
        _ => panic!("no text"),
    }
}

fn multipart(fields: &[(&str, &str)], files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(format!("--bb\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").bytes());
    }
    for (name, content) in files {
        body.extend(
            format!("--bb\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\r\n").bytes(),
        );
        body.extend(*content);
        body.extend(b"\r\n");
    }
    body.extend(b"--bb--\r\n");
    body
}

#[test]
fn cloud_inits_whole_order_is_answered() {
    let rack = rack();
    // Anonymous, twice: in the local and in the network stage.
    for _ in 0..2 {
        let url = "/latest/by-id/abc123/?op=get_preseed";
        let preseed = rack.ask(&Method::GET, url, ("10.77.0.80", None, None, &[]));
        let config = text(&preseed.response);
        assert!(config.starts_with("#cloud-config\n"), "{config}");
        for line in [
            "metadata_url: \"http://10.77.0.1:5248/MAAS/metadata/\"",
            "endpoint: \"http://10.77.0.1:5248/MAAS/metadata/status/abc123\"",
            "token_secret: \"s3cret-of-the-node\"",
            "mode: poweroff",
            "apt:\n  preserve_sources_list: true\n  proxy: \"http://10.77.0.1:8000/\"\n",
        ] {
            assert!(config.contains(line), "{line} in {config}");
        }
        assert!(matches!(preseed.facts[..], [Fact::PreseedFetched { .. }]));
    }
    let item = |name: &str| rack.get(&format!("/2012-03-01/{name}"));
    for _ in 0..2 {
        assert_eq!(text(&item("meta-data/instance-id").response), "abc123");
    }
    assert_eq!(text(&item("meta-data/local-hostname").response), "fox.maas");
    assert_eq!(item("meta-data/public-keys").response.status, 404);
    let vendor = item("meta-data/vendor-data");
    assert!(text(&vendor.response).starts_with("{\"cloud-init\":\"#cloud-config\\n"));
    assert_eq!(vendor.response.content_type, "application/x-yaml; charset=utf-8");
    let user_data = item("user-data");
    assert!(user_data.response.body == Body::Stored(body(b"#!/bin/sh\n")));
    assert_eq!(user_data.facts, [Fact::UserDataFetched]);
}

#[test]
fn lists_and_versions_as_maas_has_them() {
    let rack = rack();
    assert_eq!(text(&rack.get("/").response), "2012-03-01\nlatest");
    assert_eq!(text(&rack.get("/latest/").response), "maas-commissioning-scripts\nmeta-data\nuser-data");
    assert_eq!(text(&rack.get("//2012-03-01//meta-data/").response), "instance-id\nlocal-hostname\nvendor-data");
    assert_eq!(rack.get("/2009-01-01/meta-data/").response.status, 404);
    assert_eq!(rack.get("/latest/by-mac/52:54:00:77:00:01/").response.status, 403);
    // Whatever may be missing answers 200 or 404 and nothing else, or cloud-init gives up.
    for item in ["public-keys", "vendor-data", "x509", "nonsense"] {
        let status = rack.get(&format!("/latest/meta-data/{item}")).response.status;
        assert!(status == 200 || status == 404, "{item}: {status}");
    }
}

#[test]
fn the_preseed_goes_only_to_the_holder_of_the_lease_while_the_ticket_is_open() {
    let rack = rack();
    let url = "/latest/by-id/abc123/?op=get_preseed";
    for (from, part) in [
        ("10.77.0.81", "leased to 02:02:02:02:02:02, which is not a MAC of machine abc123"),
        ("10.77.0.99", "holds no lease of this rack"),
        ("fd00::1", "not an IPv4 address"),
    ] {
        let refused = rack.ask(&Method::GET, url, (from, None, None, &[]));
        assert_eq!(refused.response.status, 403);
        assert!(text(&refused.response).contains(part), "{}", text(&refused.response));
        assert!(matches!(&refused.facts[..], [Fact::PreseedRefused { why, .. }] if why.contains(part)));
    }
    let unknown = rack.ask(&Method::GET, "/latest/by-id/zzz999/?op=get_preseed", ("10.77.0.80", None, None, &[]));
    assert_eq!((unknown.response.status, unknown.about), (404, None));
    let over = rack_with(ticket(vec![], NOW));
    assert_eq!(over.ask(&Method::GET, url, ("10.77.0.80", None, None, &[])).response.status, 404);
    // netboot_off without a key is bound to the lease too.
    let off = |from| rack.ask(&Method::POST, "/latest/by-id/abc123/?op=netboot_off", (from, None, None, &[]));
    assert_eq!((off("10.77.0.80").response.status, off("10.77.0.81").response.status), (200, 403));
}

#[test]
fn signatures_are_checked_and_a_wrong_clock_is_named() {
    let rack = rack();
    let url = "/2012-03-01/meta-data/instance-id";
    let ask = |header: Option<&str>| rack.ask(&Method::GET, url, ("10.77.0.80", header, None, &[]));
    let now = NOW.seconds();
    for header in [None, Some("Basic eDp5"), Some("OAuth oauth_token=\"tk\"")] {
        let refused = ask(header);
        assert_eq!(refused.response.status, 401);
        assert!(text(&refused.response).starts_with("Authorization Error"));
        assert!(refused.facts.is_empty());
    }
    let wrong = ask(Some(&signed(now, "guess")));
    assert_eq!(wrong.response.status, 401);
    assert!(matches!(wrong.facts[..], [Fact::AuthRefused { skew_s: None, .. }]));
    let stranger = ask(Some(&signed(now, "s3cret-of-the-node").replace("\"tk\"", "\"other\"")));
    assert_eq!((stranger.response.status, stranger.about), (401, None));
    let late = ask(Some(&signed(now - 301, "s3cret-of-the-node")));
    assert_eq!(late.response.status, 401);
    assert!(text(&late.response).starts_with("Authorization Error"));
    assert!(matches!(late.facts[..], [Fact::AuthRefused { skew_s: Some(-301), .. }]));
    for stamp in [now - 300, now, now + 86_400] {
        assert_eq!(ask(Some(&signed(stamp, "s3cret-of-the-node"))).response.status, 200);
    }
    let no_number = signed(now, "s3cret-of-the-node").replace(&now.to_string(), "noon");
    assert_eq!(ask(Some(&no_number)).response.status, 400);
    // No answer and no fact repeats the secret.
    for answer in [wrong, late] {
        assert!(!format!("{answer:?}{}", text(&answer.response)).contains("s3cret"));
    }
}

#[test]
fn the_tar_lists_what_is_left_and_204_ends_it() {
    let rack = rack();
    let index = |rack: &Rack| match rack.get("/latest/maas-scripts").response.body {
        Body::Tar(members) => match &members.last().unwrap().source {
            rack::http::metadata::Source::Bytes(b) => serde_json::from_slice::<serde_json::Value>(b).unwrap(),
            rack::http::metadata::Source::Stored(_) => panic!("index.json stands last"),
        },
        _ => serde_json::Value::Null,
    };
    let names = |v: &serde_json::Value| {
        let list = v["1.0"]["commissioning_scripts"].as_array().cloned().unwrap_or_default();
        list.iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let first = index(&rack);
    assert_eq!(names(&first), ["20-first", "50-maas-01-commissioning"]);
    let entry = &first["1.0"]["commissioning_scripts"][0];
    assert_eq!(entry["path"], "commissioning/20-first");
    assert_eq!(
        (&entry["script_result_id"], &entry["timeout_seconds"], &entry["has_started"]),
        (&11.into(), &30.into(), &false.into())
    );
    let note = |rack: &Rack, answer: Answer| {
        let (machine, attempt) = answer.about.unwrap();
        for fact in &answer.facts {
            rack.progress.note(machine, attempt, fact, NOW);
        }
    };
    note(&rack, rack.form("op=signal&status=WORKING&script_result_id=11"));
    assert_eq!(index(&rack)["1.0"]["commissioning_scripts"][0]["has_started"], true);
    note(&rack, rack.form("op=signal&status=WORKING&script_result_id=11&exit_status=0"));
    note(&rack, rack.form("op=signal&status=WORKING&script_result_id=11"));
    assert_eq!(names(&index(&rack)), ["50-maas-01-commissioning"]);
    note(&rack, rack.form("op=signal&status=WORKING&name=50-maas-01-commissioning&exit_status=1"));
    assert!(index(&rack)["1.0"].get("commissioning_scripts").is_none());
    note(&rack, rack.form("op=signal&status=TIMEDOUT&script_result_id=13"));
    let done = rack.get("/latest/maas-scripts");
    assert_eq!((done.response.status, &done.facts[..]), (204, &[Fact::ScriptsFetched { scripts: 0 }][..]));
    // The next attempt begins anew.
    assert_eq!(rack.progress.stage("abc123".parse().unwrap(), AttemptId(4), ResultId(11)), None);
}

#[test]
fn signals_become_facts_and_long_outputs_stand_apart() {
    let rack = rack();
    let (long, longer) = (vec![b'x'; INLINE_LIMIT + 1], vec![b'y'; OUTPUT_LIMIT + 1]);
    let name = "50-maas-01-commissioning";
    let files: Vec<(String, &[u8])> =
        vec![(name.into(), &long), (format!("{name}.out"), &longer), (format!("{name}.yaml"), b"status: passed\n")];
    let files: Vec<_> = files.iter().map(|(n, c)| (n.as_str(), *c)).collect();
    let fields = [
        ("op", "signal"),
        ("status", "WORKING"),
        ("error", "Finished"),
        ("script_result_id", "12"),
        ("exit_status", "-7"),
        ("runtime", "1.2345"),
    ];
    let heard = rack.post("//2012-03-01/", "multipart/form-data; boundary=bb", &multipart(&fields, &files));
    assert_eq!((heard.response.status, text(&heard.response)), (200, "OK"));
    let [Fact::ScriptEnded { result, status, exit_status, runtime_ms, output, .. }] = &heard.facts[..] else {
        panic!("{:?}", heard.facts)
    };
    assert_eq!((result.0, *status, *exit_status, *runtime_ms), (12, SignalStatus::Working, -7, 1_235));
    assert_eq!(output.result.as_ref().unwrap().inline.as_deref(), Some(&b"status: passed\n"[..]));
    assert!(output.combined.as_ref().unwrap().inline.is_none() && output.stderr.is_none());
    assert_eq!(heard.keep.len(), 2);
    assert_eq!(output.combined.as_ref().unwrap().body, body(&heard.keep[0]));
    assert_eq!(heard.keep[1].len(), OUTPUT_LIMIT);
    assert!(heard.keep[1].ends_with(b"# cut here: 1048577 bytes were sent, 1048576 are kept\n"));

    // The shortest client there is: files by name, and the last word, in one post.
    let fields = [("op", "signal"), ("status", "OK"), ("error", "")];
    let all = rack.post("/latest/", "multipart/form-data; boundary=bb", &multipart(&fields, &[(name, b"{}")]));
    assert!(matches!(
        &all.facts[..],
        [Fact::ScriptEnded { exit_status: 0, .. }, Fact::Finished { status: SignalStatus::Ok, .. }]
    ));
    assert!(matches!(rack.form("op=signal&status=WORKING").facts[..], [Fact::Heartbeat]));
    assert!(matches!(
        rack.form("op=signal&status=INSTALLING&name=memtester").facts[..],
        [Fact::ScriptStarted { status: SignalStatus::Installing, .. }]
    ));
    assert!(matches!(&rack.form("op=signal&status=FAILED&error=2+scripts+failed").facts[..],
        [Fact::Finished { status: SignalStatus::Failed, error }] if error == "2 scripts failed"));
    assert_eq!(rack.post("/latest/?op=netboot_off", "", b"").response.status, 200);
}

#[test]
fn wrong_signals_are_answered_with_field_and_remedy() {
    let rack = rack();
    for (form, parts) in [
        ("status=OK", vec!["op", "op=signal"]),
        ("op=dance", vec!["dance", "netboot_off"]),
        ("op=signal", vec!["status", "OK"]),
        ("op=signal&status=FINE", vec!["FINE", "TIMEDOUT"]),
        ("op=signal&status=OK&script_result_id=99", vec!["script_result_id 99", "index.json"]),
        ("op=signal&status=OK&script_result_id=x", vec!["script_result_id", "\"x\""]),
        ("op=signal&status=OK&name=nobody", vec!["nobody", "memtester"]),
        ("op=signal&status=OK&exit_status=9999999999", vec!["exit_status", "32 bits"]),
        ("op=signal&status=OK&runtime=NaN", vec!["runtime", "ten years"]),
        ("op=%zz", vec!["escape"]),
    ] {
        let refused = rack.form(form);
        assert_eq!(refused.response.status, 400, "{form}");
        let told = matches!(&refused.facts[..], [Fact::SignalRefused { why }] if why.contains(parts[0]));
        assert!(told && refused.about.is_some(), "{form}: {:?}", refused.facts);
        parts.iter().for_each(|p| assert!(text(&refused.response).contains(p), "{form}: {}", text(&refused.response)));
    }
    assert_eq!(rack.post("/latest/", "text/xml", b"<x/>").response.status, 400);
    // Without a key, the body is not even looked at.
    let anonymous = rack.ask(&Method::POST, "/latest/", ("10.77.0.80", None, None, b"op=signal&status=OK"));
    assert_eq!(anonymous.response.status, 401);
}

#[test]
fn status_events_answer_204_and_only_telling_ones_are_facts() {
    let rack = rack();
    let post = |json: &str| rack.post("/status/abc123", "application/json", json.as_bytes());
    let event = |kind: &str, name: &str, result: &str| {
        post(&format!(
            "{{\"name\":\"{name}\",\"description\":\"d\",\"event_type\":\"{kind}\",\"origin\":\"cloudinit\",\"timestamp\":1.5{result}}}"
        ))
    };
    let told = |a: Answer| {
        assert_eq!(a.response.status, 204);
        a.facts.len()
    };
    assert_eq!(told(event("start", "init-network/config-ssh", "")), 1);
    assert_eq!(told(event("finish", "init-network/config-ssh", ",\"result\":\"SUCCESS\"")), 0);
    assert_eq!(told(event("finish", "init-network/config-ssh", ",\"result\":\"FAIL\"")), 1);
    assert_eq!(told(event("finish", "modules-final", ",\"result\":\"SUCCESS\"")), 1);
    for (json, part) in [("{}", "event_type"), ("[1", "event_type"), ("{\"name\":\"\u{e9}\"}", "ASCII")] {
        let refused = post(json);
        assert_eq!(refused.response.status, 400);
        assert!(text(&refused.response).contains(part));
    }
    // A key that has been withdrawn is no error here: the last events come after the end.
    let gone = rack_with(ticket(vec![], NOW));
    let header = signed(NOW.seconds(), "s3cret-of-the-node");
    let json = b"{\"name\":\"modules-final\",\"description\":\"d\",\"event_type\":\"finish\",\"origin\":\"c\"}";
    let late = gone.ask(&Method::POST, "/status/abc123", ("10.77.0.80", Some(&header), None, json));
    assert_eq!((late.response.status, late.about), (204, None));
    let unsigned = rack.ask(&Method::POST, "/status/abc123", ("10.77.0.80", None, None, json));
    assert_eq!(unsigned.response.status, 401);
    let other = rack.post("/status/zzz999", "application/json", json);
    assert_eq!(other.response.status, 204);
    assert!(matches!(other.facts[..], [Fact::AuthRefused { .. }]));
}

proptest! {
    #[test]
    fn no_request_makes_it_panic(
        path in "(/|//)?(latest|2012-03-01|status|by-id|[ -~]{0,12})?/{0,2}(meta-data|by-id|[ -~]{0,12})?/?[ -~]{0,20}",
        query in "(op=[a-z_]{0,12})?[ -~]{0,10}",
        header in proptest::option::of("OAuth [ -~]{0,80}"),
        content_type in proptest::option::of("(multipart/form-data; boundary=)?[ -~]{0,20}"),
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        post in any::<bool>(),
        sign in any::<bool>(),
    ) {
        let rack = rack();
        let header = if sign { Some(signed(NOW.seconds(), "s3cret-of-the-node")) } else { header };
        let method = if post { Method::POST } else { Method::GET };
        let url = format!("{path}?{query}");
        let answer = rack.ask(&method, &url, ("10.77.0.80", header.as_deref(), content_type.as_deref(), &bytes));
        prop_assert!((200..=500).contains(&answer.response.status));
    }
}
