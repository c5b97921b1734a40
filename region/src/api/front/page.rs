//! The page's HTML, from the census alone. Pure.

use std::fmt::Write;

use actors::findings::{Finding, Severity};
use schema::time::Timestamp;
use serde_json::Value;

use crate::census::{Fleet, Step, Stuck};

const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Hostler</title>\n\
    <link rel=\"stylesheet\" href=\"/front.css\">\n<link rel=\"icon\" href=\"data:,\">\n<script src=\"/front.js\" defer></script>\n</head>\n<body>\n";
/// Findings that are named; the rest is counted.
const FINDINGS: usize = 20;
/// Three stacked bars: rack units.
const LOGO: &str = "<svg class=\"logo\" viewBox=\"0 0 20 20\" aria-hidden=\"true\"><rect y=\"2\" width=\"20\" height=\"4\" rx=\"1\"/>\
    <rect y=\"8\" width=\"20\" height=\"4\" rx=\"1\"/><rect y=\"14\" width=\"20\" height=\"4\" rx=\"1\"/></svg>";

/// The whole page.
#[must_use]
pub(super) fn fleet(fleet: &Fleet, found: &[Finding], user: &str, now: Timestamp) -> String {
    format!(
        "{HEAD}<header class=\"top\">{LOGO}<strong>Hostler</strong><span class=\"muted\">fleet</span>\
         <span class=\"right muted\" id=\"link\" role=\"status\">signed in as {}</span></header>\n<main id=\"fleet\">\n{}</main>\n</body>\n</html>\n",
        escaped(user),
        body(fleet, found, now),
    )
}

/// The door.
#[must_use]
pub(super) fn login(why: &str) -> String {
    let why =
        if why.is_empty() { String::new() } else { format!("<p class=\"badge failed\">✕ {}</p>", escaped(why)) };
    format!(
        "{HEAD}<header class=\"top\">{LOGO}<strong>Hostler</strong></header>\n<main class=\"door\"><h1>Sign in</h1>{why}\
         <form method=\"post\" action=\"/MAAS/accounts/login/\"><label>User name<input name=\"username\" autocomplete=\"username\" required autofocus></label>\
         <label>Password<input name=\"password\" type=\"password\" autocomplete=\"current-password\" required></label>\
         <button>Sign in</button></form><p class=\"muted\">`hostler dev` prints a link that signs you in once; `hostler init` printed the first password.</p></main>\n</body>\n</html>\n"
    )
}

/// Why a machine is where it is.
#[must_use]
pub(super) fn explained(explained: &Value) -> String {
    let word = |name: &str| explained[name].as_str().unwrap_or_default();
    let (shape, class) = mark(word("status"));
    let inner = format!(
        "<h1>{}</h1>\n<section><p><span class=\"badge {class}\">{shape} {}</span> <span class=\"muted\">as of {}</span></p>\n<pre>{}</pre></section>\n\
         <p class=\"links\"><a href=\"/\">fleet</a> · <a href=\"/inspect/v1/explain/{id}\">this as JSON</a> · \
         <a href=\"/inspect/v1/actors/region/machine/{id}\">its actor</a></p>\n",
        escaped(word("hostname")),
        escaped(word("status")),
        escaped(word("at")),
        // Its lines are what it is read by.
        word("text").lines().map(|line| format!("{}\n", escaped(line))).collect::<String>(),
        id = escaped(word("machine")),
    );
    alone("fleet / machine", &inner)
}

/// There is none of that id.
#[must_use]
pub(super) fn no_machine(id: &str) -> String {
    let inner = format!(
        "<h1>No such machine</h1>\n<p>There is no machine \"{}\" any more.</p>\n<p class=\"links\"><a href=\"/\">fleet</a></p>\n",
        escaped(id)
    );
    alone("fleet / machine", &inner)
}

/// A page that does not change by itself.
fn alone(place: &str, inner: &str) -> String {
    format!(
        "{HEAD}<header class=\"top\">{LOGO}<strong>Hostler</strong><span class=\"muted\">{place}</span></header>\n<main>\n{inner}</main>\n</body>\n</html>\n"
    )
}

/// What changes: counts, steps, and who needs a look.
#[must_use]
pub(super) fn body(fleet: &Fleet, found: &[Finding], now: Timestamp) -> String {
    let mut out = String::with_capacity(8_192);
    out.push_str("<h1>Fleet</h1>\n");
    statuses(&mut out, fleet);
    findings(&mut out, found);
    stuck(&mut out, fleet);
    steps(&mut out, fleet);
    let links = [
        ("/fleet", "this page as JSON"),
        ("/inspect/v1/findings", "findings"),
        ("/inspect/v1/actors?sort=-queue", "actors"),
        ("/inspect/v1/tree", "actors as a tree"),
        ("/inspect/v1/", "all of the inspection"),
        ("/MAAS/api/2.0/rackcontrollers/", "racks"),
        ("/MAAS/api/2.0/events/?op=query", "events"),
    ];
    let links: Vec<_> = links.iter().map(|(to, name)| format!("<a href=\"{}\">{name}</a>", escaped(to))).collect();
    writeln!(out, "<p class=\"links\">{}</p>\n<p class=\"muted\">as of {now}</p>", links.join(" · ")).ok(); // A String takes all.
    out
}

fn statuses(out: &mut String, fleet: &Fleet) {
    writeln!(
        out,
        "<section class=\"strip\" aria-label=\"Machines by status\"><div><b>{}</b><span>machines</span></div>",
        fleet.machines
    )
    .ok();
    for (status, count) in &fleet.statuses {
        let (shape, class) = mark(status);
        writeln!(out, "<div><b>{count}</b><span class=\"badge {class}\">{shape} {}</span></div>", escaped(status)).ok();
    }
    let class = if fleet.stuck > 0 { "stuck" } else { "new" };
    writeln!(out, "<div><b>{}</b><span class=\"badge {class}\">▲ need a look</span></div></section>", fleet.stuck).ok();
}

/// Each kind of state has a shape of its own, so that colour is not needed to tell them apart.
fn mark(status: &str) -> (&'static str, &'static str) {
    match status {
        "Ready" => ("●", "ready"),
        "Deployed" | "Allocated" | "Reserved" => ("■", "deployed"),
        "New" => ("○", "new"),
        s if s.starts_with("Failed") || s.ends_with("failed") || s == "Broken" || s == "Missing" => ("✕", "failed"),
        "Retired" => ("○", "new"),
        _ => ("◐", "progress"),
    }
}

fn steps(out: &mut String, fleet: &Fleet) {
    out.push_str(
        "<section><h2>Commissioning, step by step</h2>\n<table><thead><tr><th>Step</th><th class=\"n\">Machines now</th>\
         <th class=\"bar\"></th><th class=\"n\">Done</th><th class=\"n\">Median</th><th class=\"n\">99 of 100 within</th></tr></thead><tbody>\n",
    );
    let most = fleet.steps.iter().map(|s| s.now).max().unwrap_or(0).max(1);
    for step in &fleet.steps {
        row(out, step, most);
    }
    let (ended, p50, p99) = fleet.attempts;
    writeln!(
        out,
        "<tr class=\"sum\"><td>Whole commissioning</td><td></td><td></td><td class=\"n\">{ended}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n</tbody></table></section>",
        span(p50, ended),
        span(p99, ended)
    )
    .ok();
}

fn row(out: &mut String, step: &Step, most: u32) {
    writeln!(
        out,
        "<tr><td>{} {}</td><td class=\"n\">{}</td><td class=\"bar\"><meter max=\"{most}\" value=\"{}\"></meter></td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
        step.step.number(),
        step.step.label(),
        step.now,
        step.now,
        step.done,
        span(step.p50_ms, step.done),
        span(step.p99_ms, step.done),
    )
    .ok();
}

fn span(ms: u64, count: u64) -> String {
    match (count, ms) {
        (0, _) => "–".into(),
        (_, 0..1_000) => format!("{ms} ms"),
        (_, 1_000..120_000) => format!("{:.1} s", ms as f64 / 1_000.0),
        _ => format!("{} min", ms / 60_000),
    }
}

/// What deserves a look of racks, services and actors, the worst first.
fn findings(out: &mut String, found: &[Finding]) {
    if found.is_empty() {
        return;
    }
    out.push_str("<section><h2>Racks, services and actors</h2>\n<table><thead><tr><th>Finding</th><th>What</th><th class=\"n\">Since (UTC)</th></tr></thead><tbody>\n");
    for Finding { id, severity, subject, since, text, remedy } in found.iter().take(FINDINGS) {
        let (shape, class) = match severity {
            Severity::Critical => ("✕", "failed"),
            Severity::Warning => ("▲", "stuck"),
        };
        let subject = match subject.split('/').count() {
            // NODE/KIND/ID is an actor.
            3 => format!("<a href=\"/inspect/v1/actors/{0}\">{0}</a>", escaped(subject)),
            _ => escaped(subject),
        };
        let since = since.map_or_else(|| "–".into(), |at| escaped(at.to_string().get(11..19).unwrap_or_default()));
        writeln!(
            out,
            "<tr><td><span class=\"badge {class}\">{shape} {}</span><br>{subject}</td><td>{}<br><span class=\"muted\">try: {}</span></td><td class=\"n\">{since}</td></tr>",
            escaped(id),
            escaped(text),
            escaped(remedy),
        )
        .ok();
    }
    let more = found.len().saturating_sub(FINDINGS);
    let more = if more > 0 {
        format!("<p class=\"muted\">and {more} more: see <a href=\"/inspect/v1/findings\">findings</a></p>")
    } else {
        String::new()
    };
    writeln!(out, "</tbody></table>{more}</section>").ok();
}

fn stuck(out: &mut String, fleet: &Fleet) {
    if fleet.stuck == 0 {
        out.push_str(
            "<section><h2>Machines that need a look</h2><p class=\"muted\">No machine is stuck.</p></section>\n",
        );
        return;
    }
    let more = fleet.stuck - fleet.named.len();
    out.push_str("<section><h2>Machines that need a look</h2>\n<table><thead><tr><th>Machine</th><th>Status</th><th>Reason</th><th class=\"n\">For</th></tr></thead><tbody>\n");
    for Stuck { machine, hostname, status, reason, remedy, seconds } in &fleet.named {
        let (shape, class) = if seconds.is_some() { ("▲", "stuck") } else { mark(status) };
        let remedy = if remedy.is_empty() {
            String::new()
        } else {
            format!("<br><span class=\"muted\">try: {}</span>", escaped(remedy))
        };
        writeln!(
            out,
            "<tr><td><a href=\"/explain/{machine}\">{}</a></td><td><span class=\"badge {class}\">{shape} {}</span></td><td>{}{remedy}</td><td class=\"n\">{}</td></tr>",
            escaped(hostname),
            escaped(status),
            escaped(reason),
            seconds.map_or("–".into(), |s| format!("{s} s")),
        )
        .ok();
    }
    writeln!(
        out,
        "</tbody></table>{}</section>",
        if more > 0 { format!("<p class=\"muted\">and {more} more</p>") } else { String::new() }
    )
    .ok();
}

/// Text as HTML: nothing of it is markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use schema::id::SystemId;

    use super::*;
    use crate::census::Census;

    #[test]
    fn what_a_machine_says_never_becomes_markup() {
        let mut shown = Census::default().fleet(Timestamp(0));
        shown.stuck = 1;
        shown.named.push(Stuck {
            machine: SystemId::from_draws([1; 6]),
            hostname: "<script>".into(),
            status: "Failed commissioning",
            reason: "\"quoted\"\n<img onerror=x>".into(),
            remedy: "a & b".into(),
            seconds: None,
        });
        let found = Finding {
            id: "rack.lost".into(),
            severity: Severity::Critical,
            subject: "a/b/<script>".into(),
            since: Some(Timestamp::from_seconds(3_600)),
            text: "rack <img> is lost".into(),
            remedy: "a & b".into(),
        };
        let text = fleet(&shown, &[found], "ada<", Timestamp(0));
        assert!(
            text.contains("✕ rack.lost") && text.contains("rack &lt;img&gt; is lost") && text.contains(">01:00:00<"),
            "{text}"
        );
        assert!(!text.contains("<script>") && !text.contains("<img") && text.contains("a &amp; b"), "{text}");
        assert!(text.contains("✕ Failed commissioning") && text.contains("12 Stored"));
        let told =
            serde_json::json!({ "hostname": "<b>", "status": "Ready", "machine": "aaaaaa", "text": "one\n<two>" });
        let page = explained(&told);
        assert!(page.contains("<h1>&lt;b&gt;</h1>") && page.contains("one\n&lt;two&gt;\n</pre>"), "{page}");
        assert!(!no_machine("<script>").contains("<script>"));
    }
}
