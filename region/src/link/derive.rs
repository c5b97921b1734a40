//! What a script's output says of the hardware: the bodies of built-in scripts, read into rows. What cannot be read fails the result, in words.

use std::sync::Arc;

use schema::{
    hardware::HardwareReport,
    lldp,
    messages::{
        machine::Derived,
        report::{Fact, Report},
    },
    net::MacAddr,
    script::{Content, ScriptOutput, outcome::Outcome},
};

use crate::{app::App, bodies::Bodies, builtin};

/// Reads what the region has to know of the report, on a thread that may block.
pub(super) async fn derive(app: &App, report: &Report) -> Derived {
    let Fact::ScriptEnded { name, exit_status, output, .. } = &report.fact else { return Derived::default() };
    let tells = *exit_status == 0 && [builtin::INVENTORY, builtin::LLDP].contains(&name.as_str());
    if !tells && output.result.is_none() {
        return Derived::default();
    }
    let (name, output, bodies) = (name.clone(), output.clone(), app.bodies.clone());
    let read = tokio::task::spawn_blocking(move || read(&name, tells, &output, |content| bytes(content, &bodies)));
    let problem = |problem| Derived { problem: Some(problem), ..Derived::default() };
    match read.await {
        Ok(Ok(mut derived)) => {
            if let Some(hardware) = &mut derived.hardware {
                Arc::make_mut(hardware).boot_mac = booted_from(app, report).await;
            }
            derived
        }
        Ok(Err(why)) => problem(why),
        Err(error) => problem(format!("its output could not be read: {error}")),
    }
}

/// The interface the machine booted from, by its lease: the kernel's BOOTIF comes with a script that ends later.
async fn booted_from(app: &App, report: &Report) -> Option<MacAddr> {
    app.machine(report.machine).await.ok()?.snapshot().attempt.as_ref()?.boot_mac
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
            derived.neighbours = Some(Arc::new(lldp::parse(&text).map_err(|e| e.to_string())?));
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
    use schema::{boot::BodyRef, boot::Sha256, script::ResultStatus};

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
        assert!(derived(builtin::LLDP, "oops", None).unwrap_err().contains("not XML"));
        assert!(derived(builtin::LLDP, "<lldp/>", Some("status: great")).unwrap_err().contains("great"));
        let good = derived(builtin::LLDP, "<lldp/>", Some("status: skipped")).unwrap();
        assert_eq!((good.result_status, good.neighbours), (Some(ResultStatus::Skipped), Some(Arc::new(vec![]))));
    }
}
