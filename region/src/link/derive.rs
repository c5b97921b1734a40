//! What a script's output says of the hardware: the bodies of built-in scripts, read into rows. What cannot be read fails the result, in words.

use std::sync::Arc;

use schema::{
    hardware::HardwareReport,
    lldp,
    messages::{
        machine::Derived,
        report::{Fact, Report},
    },
    script::{Content, ResultStatus, ScriptOutput, outcome::Outcome},
};

use crate::{app::App, bodies::Bodies, builtin};

/// Reads what the region has to know of the report, on a thread that may block.
pub(super) async fn derive(app: &App, report: &Report) -> Derived {
    let Fact::ScriptEnded { name, exit_status, output, .. } = &report.fact else { return Derived::default() };
    if !worth_reading(name, *exit_status, output) {
        return Derived::default();
    }
    let (report, bodies) = (report.clone(), app.bodies.clone());
    let read = tokio::task::spawn_blocking(move || of(&report, |content| bytes(content, &bodies)));
    read.await.unwrap_or_else(|error| unread(format!("its output could not be read: {error}")))
}

/// What the region has to know of a report. Pure but for `bytes`, which finds the bodies that did not travel within it.
#[must_use]
pub fn of(report: &Report, bytes: impl Fn(&Content) -> Result<Vec<u8>, String>) -> Derived {
    let Fact::ScriptEnded { name, exit_status, output, .. } = &report.fact else { return Derived::default() };
    if !worth_reading(name, *exit_status, output) {
        return Derived::default();
    }
    read(name, tells(name, *exit_status), output, bytes).unwrap_or_else(unread)
}

/// Whether the script's output is facts about the hardware.
fn tells(name: &str, exit_status: i32) -> bool {
    exit_status == 0 && [builtin::INVENTORY, builtin::LLDP].contains(&name)
}

fn worth_reading(name: &str, exit_status: i32, output: &ScriptOutput) -> bool {
    tells(name, exit_status) || output.result.is_some()
}

fn unread(problem: String) -> Derived {
    Derived { problem: Some(problem), ..Derived::default() }
}

/// The result file's own judgement, and for the scripts that tell of the hardware, what their output says.
fn read(
    name: &str,
    tells: bool,
    output: &ScriptOutput,
    bytes: impl Fn(&Content) -> Result<Vec<u8>, String>,
) -> Result<Derived, String> {
    let mut derived = Derived::default();
    if let Some(result) = &output.result {
        derived.result_status = Outcome::parse(&bytes(result)?).map_err(|e| e.to_string())?.status;
    }
    if tells {
        let content = output.stdout.as_ref().or(output.combined.as_ref());
        let text = bytes(content.ok_or_else(|| format!("{name} wrote nothing; look at the machine's console"))?)?;
        if name == builtin::INVENTORY {
            derived.hardware = Some(Arc::new(HardwareReport::from_resources(&text).map_err(|e| e.to_string())?));
        } else {
            // Neighbours are good to know; what a switch says must not keep a sound machine from Ready.
            match lldp::parse(&text) {
                Ok(neighbours) => derived.neighbours = Some(Arc::new(neighbours)),
                Err(error) => {
                    tracing::warn!("The output of {name} names no neighbours: {error}");
                    derived.result_status = derived.result_status.or(Some(ResultStatus::Degraded));
                }
            }
        }
    }
    Ok(derived)
}

fn bytes(content: &Content, bodies: &Bodies) -> Result<Vec<u8>, String> {
    match &content.inline {
        Some(bytes) => Ok(bytes.clone()),
        None => bodies.read(content.body.sha256).map_err(|e| {
            format!(
                "the output {} ({} bytes) is not here: {e}; commission again",
                content.body.sha256, content.body.len
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use schema::boot::{BodyRef, Sha256};

    use super::*;

    fn content(text: &str) -> Option<Content> {
        let body = BodyRef { sha256: Sha256::of(text.as_bytes()), len: text.len() as u64 };
        Some(Content { body, inline: Some(text.as_bytes().to_vec()) })
    }

    fn derived(name: &str, stdout: &str, result: Option<&str>) -> Result<Derived, String> {
        let output =
            ScriptOutput { stdout: content(stdout), result: result.and_then(content), ..ScriptOutput::default() };
        read(name, true, &output, |c| Ok(c.inline.clone().unwrap_or_default()))
    }

    #[test]
    fn what_cannot_be_read_is_a_problem_in_words() {
        assert!(derived(builtin::INVENTORY, "Traceback", None).unwrap_err().contains("not JSON"));
        let deaf = derived(builtin::LLDP, "oops", None).unwrap();
        assert_eq!((deaf.result_status, deaf.neighbours), (Some(ResultStatus::Degraded), None));
        assert!(derived(builtin::LLDP, "<lldp/>", Some("status: great")).unwrap_err().contains("great"));
        let good = derived(builtin::LLDP, "<lldp/>", Some("status: skipped")).unwrap();
        assert_eq!((good.result_status, good.neighbours), (Some(ResultStatus::Skipped), Some(Arc::new(vec![]))));
    }
}
