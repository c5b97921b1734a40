//! Records as people write them, in the form of zone files (RFC 1035 section 5), read into nouns.

use schema::dns::{DnsName, Mx, RecordData, Srv, Sshfp};

/// Characters of one TXT record at most.
const TEXT_MAX: usize = 4_096;

/// A text that is no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// MAAS's field.
    pub field: &'static str,
    pub value: String,
    pub bound: String,
    pub remedy: String,
}

/// The record of that type, as a set of one.
///
/// # Errors
/// [`Wrong`]: what is wrong, and the form that is wanted.
pub fn parse(rrtype: &str, rrdata: &str) -> Result<RecordData, Wrong> {
    let words: Vec<&str> = rrdata.split_whitespace().collect();
    let data = match (rrtype, words.as_slice()) {
        ("CNAME", [target]) => name(target).map(RecordData::Cname),
        ("NS", [server]) => name(server).map(|n| RecordData::Ns(vec![n])),
        ("MX", [preference, exchange]) => mx(preference, exchange).map(|mx| RecordData::Mx(vec![mx])),
        ("SRV", [priority, weight, port, target]) => {
            srv([priority, weight, port], target).map(|s| RecordData::Srv(vec![s]))
        }
        ("SSHFP", [algorithm, kind, print]) => sshfp(algorithm, kind, print).map(|s| RecordData::Sshfp(vec![s])),
        ("TXT", _) => txt(rrdata).map(|text| RecordData::Txt(vec![text])),
        _ => None,
    };
    data.ok_or_else(|| wrong(rrtype, rrdata))
}

fn wrong(rrtype: &str, rrdata: &str) -> Wrong {
    let form = match rrtype {
        "CNAME" => "a name, as in host.example.com",
        "NS" => "a server's name, as in ns.example.com",
        "MX" => "preference and host, as in 10 mail.example.com",
        "SRV" => "priority, weight, port and host, as in 0 5 5060 sip.example.com",
        "SSHFP" => "algorithm, type and fingerprint, as in 4 2 and an even number of hexadecimal digits",
        "TXT" => "text of printable ASCII, 4096 characters at most",
        "A" | "AAAA" => {
            let (bound, remedy) = ("is made with addresses".into(), "use ip_addresses of dnsresources/".into());
            return Wrong { field: "rrtype", value: rrtype.into(), bound, remedy };
        }
        _ => {
            let (bound, remedy) = ("is no type that is served".into(), "use CNAME, MX, NS, SRV, SSHFP or TXT".into());
            return Wrong { field: "rrtype", value: rrtype.into(), bound, remedy };
        }
    };
    Wrong {
        field: "rrdata",
        value: rrdata.into(),
        bound: format!("is no {rrtype} record"),
        remedy: format!("write {form}"),
    }
}

fn name(text: &str) -> Option<DnsName> {
    text.parse().ok().filter(|name: &DnsName| !name.as_str().contains('*'))
}

fn mx(preference: &str, exchange: &str) -> Option<Mx> {
    Some(Mx { preference: preference.parse().ok()?, exchange: name(exchange)? })
}

fn srv(numbers: [&&str; 3], target: &str) -> Option<Srv> {
    let [priority, weight, port] = numbers.map(|n| n.parse().ok());
    Some(Srv { priority: priority?, weight: weight?, port: port?, target: name(target)? })
}

fn sshfp(algorithm: &str, kind: &str, print: &str) -> Option<Sshfp> {
    let hex = !print.is_empty()
        && print.len() <= 128
        && print.len().is_multiple_of(2)
        && print.bytes().all(|b| b.is_ascii_hexdigit());
    let fingerprint = hex.then(|| print.to_ascii_lowercase())?;
    Some(Sshfp { algorithm: algorithm.parse().ok()?, kind: kind.parse().ok()?, fingerprint })
}

/// Quotes around the whole are a zone file's and no part of it.
fn txt(text: &str) -> Option<String> {
    let text = text.trim();
    let plain = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    let fine = plain.len() <= TEXT_MAX && plain.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    fine.then(|| plain.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reading of [`parse`] turned round, a text for each record.
    fn show(data: &RecordData) -> String {
        match data {
            RecordData::Cname(target) => target.to_string(),
            RecordData::Ns(all) => all[0].to_string(),
            RecordData::Mx(all) => format!("{} {}", all[0].preference, all[0].exchange),
            RecordData::Txt(all) => all[0].clone(),
            RecordData::Srv(all) => format!("{} {} {} {}", all[0].priority, all[0].weight, all[0].port, all[0].target),
            RecordData::Sshfp(all) => format!("{} {} {}", all[0].algorithm, all[0].kind, all[0].fingerprint),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn records_read_as_zone_files_have_them_and_say_what_they_want() {
        for (rrtype, rrdata) in [
            ("CNAME", "host.example.com"),
            ("NS", "ns.example.com"),
            ("MX", "10 mail.example.com"),
            ("SRV", "0 5 5060 sip.example.com"),
            ("SSHFP", "4 2 00ff"),
            ("TXT", "v=spf1 -all"),
        ] {
            assert_eq!(show(&parse(rrtype, rrdata).unwrap()), rrdata);
        }
        for (rrtype, rrdata, field) in [
            ("CNAME", "two names", "rrdata"),
            ("MX", "mail.example.com", "rrdata"),
            ("SRV", "0 5 99999 x", "rrdata"),
            ("SSHFP", "4 2 0f0", "rrdata"),
            ("TXT", "tab\there", "rrdata"),
            ("CNAME", "*.example.com", "rrdata"),
            ("A", "10.0.0.1", "rrtype"),
            ("LOC", "x", "rrtype"),
        ] {
            let wrong = parse(rrtype, rrdata).unwrap_err();
            assert!(wrong.field == field && !wrong.remedy.is_empty(), "{wrong:?}");
        }
    }
}
