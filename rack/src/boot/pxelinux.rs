//! PXELINUX configs. Kernel and initrd are URLs, which `lpxelinux.0` knows how to fetch.

use schema::plan::Ticket;

use super::System;

/// The config that boots the ephemeral system. `IPAPPEND 2` makes PXELINUX append `BOOTIF=01-…` itself.
#[must_use]
pub fn ephemeral(system: &System<'_>) -> String {
    format!(
        "# Hostler: {hostname} boots the ephemeral system\n\
         DEFAULT ephemeral\n\
         PROMPT 0\n\
         LABEL ephemeral\n  \
           KERNEL {kernel}\n  \
           INITRD {initrd}\n  \
           APPEND {parameters}\n  \
           IPAPPEND 2\n",
        hostname = system.ticket.hostname,
        kernel = system.url(&system.kernel_path()),
        initrd = system.url(&system.initrd_path()),
        parameters = system.parameters(),
    )
}

/// The config that boots the machine's own disk.
#[must_use]
pub fn local(ticket: &Ticket) -> String {
    format!(
        "# Hostler: {} boots from its own disk\nDEFAULT local\nPROMPT 0\nLABEL local\n  LOCALBOOT 0\n",
        ticket.hostname
    )
}
