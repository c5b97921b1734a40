//! The header of a commissioning or testing script (MAAS script metadata 1.0): a YAML block in its comments, read with every fault named.

use std::fmt;

use serde_json::{Map, Value};

use super::ScriptType;

/// The longest script in bytes.
pub const SCRIPT_LIMIT: usize = 2 * 1024 * 1024;
/// The longest header in bytes.
const HEADER_LIMIT: usize = 64 * 1024;
/// The longest name in characters.
const NAME_LIMIT: usize = 255;
/// The longest time-out in seconds: 30 days.
const TIMEOUT_LIMIT: u64 = 30 * 86_400;

/// What a script says of itself. Absent keys are `None`, empty or false.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScriptHeader {
    pub name: Option<String>,
    pub title: String,
    pub description: String,
    pub tags: Vec<String>,
    pub script_type: Option<ScriptType>,
    /// 0 node, 1 CPU, 2 memory, 3 storage, 4 network.
    pub hardware_type: u8,
    /// 0 one by one, 1 beside instances of itself, 2 beside any.
    pub parallel: u8,
    /// Seconds; 0 is none.
    pub timeout_s: u32,
    /// `{apt: […], snap: […], url: […]}`, lists only.
    pub packages: Map<String, Value>,
    pub parameters: Map<String, Value>,
    /// Names, or a map of names; as written.
    pub results: Value,
    pub for_hardware: Vec<String>,
    pub destructive: bool,
    pub may_reboot: bool,
    pub recommission: bool,
    pub apply_configured_networking: bool,
}

/// Everything that is wrong with a script's header: one line each, with field, value, rule and remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct HeaderError {
    pub problems: Vec<String>,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("; "))
    }
}

impl ScriptHeader {
    /// Reads the header of a script's text. A script without a header has an empty one.
    ///
    /// # Errors
    /// All faults at once: no `#!/` line, a header without end, YAML that does not parse, values outside their rules.
    pub fn parse(text: &str) -> Result<Self, HeaderError> {
        let one = |problem: String| HeaderError { problems: vec![problem] };
        if text.len() > SCRIPT_LIMIT {
            return Err(one(format!("the script has {} bytes, more than {SCRIPT_LIMIT}", text.len())));
        }
        if !text.starts_with("#!/") {
            let first: String = text.lines().next().unwrap_or("").chars().take(60).collect();
            return Err(one(format!("the first line \"{first}\" must name an interpreter, as in #!/bin/sh")));
        }
        let Some(yaml) = block(text).map_err(one)? else { return Ok(Self::default()) };
        let value: Value = serde_saphyr::from_str(&yaml).map_err(|e| one(format!("the header is not YAML: {e}")))?;
        match value {
            Value::Null => Ok(Self::default()),
            Value::Object(map) => Fields::default().read(&map),
            _ => Err(one("the header must hold \"key: value\" lines".into())),
        }
    }
}

/// The lines between the markers without their comment sign; `None` without a start marker.
fn block(text: &str) -> Result<Option<String>, String> {
    let (mut yaml, mut inside) = (String::new(), false);
    for (i, line) in text.lines().enumerate() {
        match (marker(line), inside) {
            (Some(("start", version)), false) => {
                if version != "1.0" {
                    return Err(format!("line {}: metadata version \"{version}\" is unknown; write 1.0", i + 1));
                }
                inside = true;
            }
            (Some(("end", _)), true) => return Ok(Some(yaml)),
            (_, true) => {
                let bare = line.trim_start().strip_prefix('#').ok_or_else(|| {
                    format!("line {}: every line of the header must begin with \"#\", up to the end marker", i + 1)
                })?;
                // One blank after the sign belongs to the comment; more is YAML's indentation.
                yaml.push_str(bare.strip_prefix(' ').unwrap_or(bare));
                yaml.push('\n');
                if yaml.len() > HEADER_LIMIT {
                    return Err(format!("the header exceeds {HEADER_LIMIT} bytes"));
                }
            }
            _ => {}
        }
    }
    if inside { Err("the header has no line \"# --- End MAAS 1.0 script metadata ---\"".into()) } else { Ok(None) }
}

/// `# --- Start MAAS 1.0 script metadata ---`: "start" or "end", and the version.
fn marker(line: &str) -> Option<(&'static str, String)> {
    let line = line.trim().strip_prefix('#')?.trim().to_ascii_lowercase();
    let inner = line.strip_prefix('-')?.strip_suffix('-')?.trim_matches('-').trim();
    let words: Vec<_> = inner.split_ascii_whitespace().collect();
    match words.as_slice() {
        ["start", "maas", version, "script", "metadata"] => Some(("start", (*version).to_owned())),
        ["end", "maas", version, "script", "metadata"] => Some(("end", (*version).to_owned())),
        _ => None,
    }
}

/// Reads fields and gathers what is wrong.
#[derive(Default)]
struct Fields {
    problems: Vec<String>,
}

impl Fields {
    fn read(mut self, map: &Map<String, Value>) -> Result<ScriptHeader, HeaderError> {
        let mut header = ScriptHeader::default();
        for (key, value) in map {
            match key.as_str() {
                "name" => header.name = self.name(value),
                "title" => header.title = self.text(key, value),
                "description" => header.description = self.text(key, value),
                "tags" => header.tags = self.texts(key, value),
                "script_type" | "type" => header.script_type = self.script_type(key, value),
                "hardware_type" => header.hardware_type = self.choice(key, value, HARDWARE),
                "parallel" => header.parallel = self.choice(key, value, PARALLEL),
                "timeout" => header.timeout_s = self.timeout(value),
                "packages" => header.packages = self.packages(value),
                "parameters" => header.parameters = self.parameters(value),
                "results" => header.results = value.clone(),
                "for_hardware" => header.for_hardware = self.for_hardware(value),
                "destructive" => header.destructive = self.flag(key, value),
                "may_reboot" => header.may_reboot = self.flag(key, value),
                "recommission" => header.recommission = self.flag(key, value),
                "apply_configured_networking" => header.apply_configured_networking = self.flag(key, value),
                other => self.wrong(other, value, "is no key of the header; remove it or correct its name"),
            }
        }
        if self.problems.is_empty() { Ok(header) } else { Err(HeaderError { problems: self.problems }) }
    }

    fn wrong(&mut self, key: &str, value: &Value, rule: &str) {
        let shown: String = plain(value).chars().take(80).collect();
        self.problems.push(format!("{key}: \"{shown}\" {rule}"));
    }

    fn text(&mut self, key: &str, value: &Value) -> String {
        match value {
            Value::String(_) | Value::Number(_) | Value::Null => plain(value),
            _ => {
                self.wrong(key, value, "must be a text");
                String::new()
            }
        }
    }

    fn name(&mut self, value: &Value) -> Option<String> {
        let name = self.text("name", value);
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
        if name.is_empty() || name.len() > NAME_LIMIT || name.starts_with('.') || !name.chars().all(fits) {
            let rule =
                "must be 1 to 255 letters, digits, hyphens, underscores, dots or plus signs, without a dot in front";
            self.wrong("name", value, rule);
            return None;
        }
        Some(name)
    }

    /// A list, or one text with commas.
    fn texts(&mut self, key: &str, value: &Value) -> Vec<String> {
        match value {
            Value::Null => Vec::new(),
            Value::String(text) => text.split(',').map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect(),
            Value::Array(items) => items.iter().map(|item| self.text(key, item)).collect(),
            _ => {
                self.wrong(key, value, "must be a list of texts, or one text with commas");
                Vec::new()
            }
        }
    }

    fn flag(&mut self, key: &str, value: &Value) -> bool {
        match plain(value).to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => true,
            "false" | "no" | "off" | "0" | "" => false,
            _ => {
                self.wrong(key, value, "must be true or false");
                false
            }
        }
    }

    fn script_type(&mut self, key: &str, value: &Value) -> Option<ScriptType> {
        match plain(value).to_ascii_lowercase().as_str() {
            "commission" | "commissioning" | "0" => Some(ScriptType::Commissioning),
            "test" | "testing" | "2" => Some(ScriptType::Testing),
            _ => {
                self.wrong(key, value, "must be commissioning or testing");
                None
            }
        }
    }

    fn choice(&mut self, key: &str, value: &Value, words: &[(&str, u8)]) -> u8 {
        let text = plain(value).to_ascii_lowercase();
        let found = words.iter().find(|(word, number)| *word == text || number.to_string() == text);
        found.map_or_else(
            || {
                let known: Vec<_> = words.iter().map(|(w, _)| *w).collect();
                self.wrong(key, value, &format!("must be one of {}", known.join(", ")));
                0
            },
            |(_, number)| *number,
        )
    }

    fn timeout(&mut self, value: &Value) -> u32 {
        let text = plain(value);
        let parts: Option<Vec<u64>> = text.split(':').map(|p| p.trim().parse().ok()).collect();
        let seconds = match parts.as_deref() {
            Some([s]) => Some(*s),
            Some([h, m, s]) if *m < 60 && *s < 60 => h.checked_mul(3_600).map(|h| h.saturating_add(m * 60 + s)),
            _ => None,
        };
        seconds.filter(|s| *s <= TIMEOUT_LIMIT).and_then(|s| u32::try_from(s).ok()).unwrap_or_else(|| {
            self.wrong("timeout", value, "must be seconds or HH:MM:SS, at most 30 days; 0 is no limit");
            0
        })
    }

    fn packages(&mut self, value: &Value) -> Map<String, Value> {
        let Value::Object(map) = value else {
            if !value.is_null() {
                self.wrong("packages", value, "must be a map with apt, snap or url");
            }
            return Map::new();
        };
        let mut packages = Map::new();
        for (kind, list) in map {
            if !matches!(kind.as_str(), "apt" | "snap" | "url") {
                self.wrong("packages", &Value::String(kind.clone()), "must be apt, snap or url");
                continue;
            }
            let list = match list {
                Value::Array(items) => items.clone(),
                Value::Null => Vec::new(),
                single => vec![single.clone()],
            };
            for item in &list {
                let named = item.get("name").is_some_and(Value::is_string);
                // A name with a leading hyphen would be read as an option by the package tool.
                if item.as_str().is_none_or(|s| s.is_empty() || s.starts_with('-')) && !(kind == "snap" && named) {
                    self.wrong(&format!("packages.{kind}"), item, "must be a package name");
                }
            }
            packages.insert(kind.clone(), Value::Array(list));
        }
        packages
    }

    fn parameters(&mut self, value: &Value) -> Map<String, Value> {
        const TYPES: [&str; 7] = ["storage", "interface", "runtime", "url", "string", "password", "choice"];
        let Value::Object(map) = value else {
            if !value.is_null() {
                self.wrong("parameters", value, "must be a map of name to {type: …}");
            }
            return Map::new();
        };
        for (name, parameter) in map {
            let kind = parameter.get("type").map_or_else(|| "string".into(), plain);
            if !parameter.is_object() || !TYPES.contains(&kind.as_str()) {
                let rule = format!("must be a map whose type is one of {}", TYPES.join(", "));
                self.wrong(&format!("parameters.{name}"), parameter, &rule);
            }
        }
        map.clone()
    }

    fn for_hardware(&mut self, value: &Value) -> Vec<String> {
        const KINDS: [&str; 8] = [
            "modalias",
            "pci",
            "usb",
            "system_vendor",
            "system_product",
            "system_version",
            "mainboard_vendor",
            "mainboard_product",
        ];
        let list = self.texts("for_hardware", value);
        for item in &list {
            if !item.split_once(':').is_some_and(|(kind, rest)| KINDS.contains(&kind) && !rest.is_empty()) {
                let rule = format!("must be KIND:VALUE with KIND one of {}", KINDS.join(", "));
                self.wrong("for_hardware", &Value::String(item.clone()), &rule);
            }
        }
        list
    }
}

const HARDWARE: &[(&str, u8)] = &[
    ("node", 0),
    ("machine", 0),
    ("controller", 0),
    ("other", 0),
    ("cpu", 1),
    ("processor", 1),
    ("memory", 2),
    ("ram", 2),
    ("storage", 3),
    ("disk", 3),
    ("ssd", 3),
    ("network", 4),
    ("net", 4),
    ("interface", 4),
];
const PARALLEL: &[(&str, u8)] =
    &[("disabled", 0), ("none", 0), ("instance", 1), ("name", 1), ("any", 2), ("enabled", 2)];

/// A scalar as it was written.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
