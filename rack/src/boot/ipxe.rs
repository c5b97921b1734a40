//! iPXE scripts. Kernel and initrd come by HTTP from the rack that rendered the script.

use schema::plan::Ticket;

use super::System;

/// The script that boots the ephemeral system.
///
/// What is not here yet (503) is asked for again by way of a fresh script, so a ticket that was withdrawn meanwhile ends the waiting.
#[must_use]
pub fn ephemeral(system: &System<'_>) -> String {
    format!(
        "#!ipxe\n\
         echo Hostler: {hostname} boots the ephemeral system\n\
         kernel {kernel} || goto again\n\
         imgargs boot-kernel initrd=boot-initrd {parameters} {bootif} || goto again\n\
         initrd {initrd} || goto again\n\
         boot || goto again\n\
         :again\n\
         imgfree\n\
         sleep 5 ||\n\
         chain --replace {script} || reboot\n",
        hostname = system.ticket.hostname,
        kernel = system.url(&system.kernel_path()),
        initrd = system.url(&system.initrd_path()),
        script = system.url("ipxe.cfg"),
        parameters = system.parameters(),
        bootif = system.bootif(),
    )
}

/// The script that boots the machine's own disk. UEFI goes on with its next boot entry; a BIOS is given its disks in turn.
#[must_use]
pub fn local(ticket: &Ticket) -> String {
    let mut script = format!(
        "#!ipxe\necho Hostler: {} boots from its own disk\niseq ${{platform}} efi && exit 1 ||\n",
        ticket.hostname
    );
    for drive in ["0x80", "0x81", "0x82", "0x83"] {
        script.push_str(&format!("sanboot --no-describe --drive {drive} ||\n"));
    }
    script.push_str("exit 1\n");
    script
}
