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
    script::{Content, ScriptOutput},
};

use crate::{app::App, bodies::Bodies, builtin};

/// Reads what the region has to know of the report, on a thread that may block.
pub(super) async fn derive(app: &App, report: &Report) -> Derived {
    let Fact::ScriptEnded { name, exit_status: 0, output, .. } = &report.fact else { return Derived::default() };
    if ![builtin::INVENTORY, builtin::LLDP].contains(&name.as_str()) {
        return Derived::default();
    }
    let (name, output, bodies) = (name.clone(), output.clone(), app.bodies.clone());
    // The interface it booted from is known from its lease: the kernel's BOOTIF comes with a script that ends later.
    let machine = app.machine(report.machine).await.ok().map(|actor| actor.snapshot());
    let boot_mac = machine.and_then(|m| m.attempt.as_ref().and_then(|a| a.boot_mac));
    let read = tokio::task::spawn_blocking(move || read(&name, &output, &bodies, boot_mac)).await;
    let problem = |problem| Derived { problem: Some(problem), ..Derived::default() };
    match read {
        Ok(Ok(derived)) => derived,
        Ok(Err(why)) => problem(why),
        Err(error) => problem(format!("its output could not be read: {error}")),
    }
}

fn read(name: &str, output: &ScriptOutput, bodies: &Bodies, boot_mac: Option<MacAddr>) -> Result<Derived, String> {
    let content = output.stdout.as_ref().or(output.combined.as_ref());
    let content = content.ok_or_else(|| format!("{name} wrote nothing; look at the machine's console"))?;
    let bytes = bytes(content, bodies)?;
    if name == builtin::INVENTORY {
        let mut hardware = HardwareReport::from_resources(&bytes).map_err(|e| format!("{name}: {e}"))?;
        hardware.boot_mac = boot_mac;
        return Ok(Derived { hardware: Some(Arc::new(hardware)), ..Derived::default() });
    }
    let neighbours = lldp::parse(&bytes).map_err(|e| format!("{name}: {e}"))?;
    Ok(Derived { neighbours: Some(Arc::new(neighbours)), ..Derived::default() })
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
