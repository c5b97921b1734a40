//! Data on stdout: a table, or the same objects as JSON, YAML, NDJSON, CSV or names. Everything else goes to stderr.

use std::io::Write;

use serde_json::Value;

use super::{failure::Failure, yaml};

/// How data is printed. It never depends on whether a terminal looks on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
    Yaml,
    Ndjson,
    Csv,
    Name,
}

/// A column: its heading, and where its value stands in an object (a JSON pointer).
pub type Column = (&'static str, &'static str);

/// Prints a list of objects. `name` points to what `-o name` prints.
///
/// # Errors
/// When stdout is closed for another reason than that its reader has enough.
pub fn list(format: Format, columns: &[Column], name: &str, items: &[Value]) -> Result<(), Failure> {
    let text = match format {
        Format::Json => format!("{:#}\n", Value::Array(items.to_vec())),
        Format::Yaml => yaml::text(&Value::Array(items.to_vec())),
        Format::Ndjson => items.iter().map(|i| format!("{i}\n")).collect(),
        Format::Csv => csv(columns, items),
        Format::Name => items.iter().map(|i| format!("{}\n", cell(i, name))).collect(),
        Format::Table => table(columns, items),
    };
    print(&text)
}

/// Prints one object: as a table, its columns are lines.
///
/// # Errors
/// As [`list`].
pub fn one(format: Format, columns: &[Column], name: &str, item: &Value) -> Result<(), Failure> {
    let text = match format {
        Format::Json => format!("{item:#}\n"),
        Format::Yaml => yaml::text(item),
        Format::Table => {
            let width = columns.iter().map(|(h, _)| h.chars().count()).max().unwrap_or(0);
            let line = |(head, at): &Column| format!("{head:<width$}  {}", cell(item, at)).trim_end().to_owned() + "\n";
            columns.iter().map(line).collect()
        }
        _ => return list(format, columns, name, std::slice::from_ref(item)),
    };
    print(&text)
}

/// Prints text as it is.
///
/// # Errors
/// As [`list`].
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

fn cell(item: &Value, pointer: &str) -> String {
    match item.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let words: Vec<_> = items.iter().map(|i| i.as_str().map_or_else(|| i.to_string(), str::to_owned)).collect();
            words.join(",")
        }
        Some(other) => other.to_string(),
    }
}

fn table(columns: &[Column], items: &[Value]) -> String {
    let mut rows = vec![columns.iter().map(|(head, _)| (*head).to_owned()).collect::<Vec<_>>()];
    rows.extend(items.iter().map(|i| columns.iter().map(|(_, at)| cell(i, at).replace(['\n', '\r'], " ")).collect()));
    let width =
        |at: usize| rows.iter().filter_map(|r: &Vec<String>| r.get(at)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// RFC 4180, with line feeds.
fn csv(columns: &[Column], items: &[Value]) -> String {
    let quoted = |text: String| {
        if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
    };
    let head: Vec<_> = columns.iter().map(|(head, _)| head.to_lowercase().replace(' ', "_")).collect();
    let row = |i: &Value| columns.iter().map(|(_, at)| quoted(cell(i, at))).collect::<Vec<_>>().join(",") + "\n";
    head.join(",") + "\n" + &items.iter().map(row).collect::<String>()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_align_and_csv_quotes() {
        let items = [json!({"a": "x,\"y\"", "b": {"c": 1}, "l": ["p", "q"]}), json!({"a": null, "b": {"c": 22}})];
        let columns = [("NAME", "/a"), ("COUNT", "/b/c"), ("L", "/l")];
        assert_eq!(table(&columns, &items), "NAME   COUNT  L\nx,\"y\"  1      p,q\n       22\n");
        assert_eq!(csv(&columns, &items), "name,count,l\n\"x,\"\"y\"\"\",1,\"p,q\"\n,22,\n");
    }
}
