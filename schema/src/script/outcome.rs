//! The result file of a script (`$RESULT_PATH`, YAML): its own judgement and the values it measured.

use serde_json::{Map, Value};

use super::ResultStatus;

/// What a result file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Overrides what the exit status says.
    pub status: Option<ResultStatus>,
    /// Scalars or lists of scalars by name.
    pub results: Map<String, Value>,
    /// Only scripts about an interface say it.
    pub link_connected: Option<bool>,
}

/// A result file that cannot be used, with field, value and remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutcomeError {
    #[error("the result file is not YAML: {0}")]
    Yaml(String),
    #[error("the result file must be a map with status, results and link_connected; it is \"{0}\"")]
    Shape(String),
    #[error("status \"{0}\" of the result file is not one of passed, failed, degraded, timedout, skipped")]
    Status(String),
    #[error("{0} of the result file must be {1}")]
    Field(String, &'static str),
}

impl Outcome {
    /// Reads a result file. An empty one says nothing.
    ///
    /// # Errors
    /// When it is no YAML map, or a value is outside its rules.
    pub fn parse(bytes: &[u8]) -> Result<Self, OutcomeError> {
        let text = std::str::from_utf8(bytes).map_err(|e| OutcomeError::Yaml(e.to_string()))?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let value: Value = serde_saphyr::from_str(text).map_err(|e| OutcomeError::Yaml(e.to_string()))?;
        let map = match value {
            Value::Null => return Ok(Self::default()),
            Value::Object(map) => map,
            other => return Err(OutcomeError::Shape(other.to_string().chars().take(80).collect())),
        };
        let results = match map.get("results") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(results)) => checked(results)?,
            Some(_) => return Err(OutcomeError::Field("results".into(), "a map of names to values")),
        };
        let link_connected = match map.get("link_connected") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(up)) => Some(*up),
            Some(_) => return Err(OutcomeError::Field("link_connected".into(), "true or false")),
        };
        Ok(Self { status: map.get("status").map(status).transpose()?, results, link_connected })
    }
}

fn checked(results: &Map<String, Value>) -> Result<Map<String, Value>, OutcomeError> {
    let scalar = |v: &Value| !v.is_object() && !v.is_array();
    for (name, value) in results {
        if !scalar(value) && !value.as_array().is_some_and(|list| list.iter().all(scalar)) {
            let name: String = name.chars().take(80).collect();
            return Err(OutcomeError::Field(format!("results.{name}"), "a scalar or a list of scalars"));
        }
    }
    Ok(results.clone())
}

fn status(value: &Value) -> Result<ResultStatus, OutcomeError> {
    match value.as_str().unwrap_or("") {
        "passed" => Ok(ResultStatus::Passed),
        "failed" => Ok(ResultStatus::Failed),
        "degraded" => Ok(ResultStatus::Degraded),
        "timedout" => Ok(ResultStatus::TimedOut),
        "skipped" => Ok(ResultStatus::Skipped),
        _ => Err(OutcomeError::Status(value.to_string().trim_matches('"').chars().take(80).collect())),
    }
}
