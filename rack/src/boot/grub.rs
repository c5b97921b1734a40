//! GRUB configs, for GRUB 2.06 and Debian's signed image: it knows no port in `(http,host:port)` and has no http at all,
//! so paths carry no device and are fetched the way GRUB itself was.

use schema::plan::Ticket;

use super::System;

/// Where installed systems keep their loaders on the EFI system partition, in the order they are tried.
const INSTALLED: [&str; 11] = [
    "/efi/boot/bootx64.efi",
    "/efi/ubuntu/shimx64.efi",
    "/efi/ubuntu/grubx64.efi",
    "/efi/debian/shimx64.efi",
    "/efi/debian/grubx64.efi",
    "/efi/centos/shimx64.efi",
    "/efi/redhat/shimx64.efi",
    "/efi/rhel/shimx64.efi",
    "/efi/Microsoft/Boot/bootmgfw.efi",
    "/efi/boot/bootaa64.efi",
    "/efi/ubuntu/grubaa64.efi",
];

/// The config that boots the ephemeral system.
#[must_use]
pub fn ephemeral(system: &System<'_>) -> String {
    format!(
        "# Hostler: {hostname} boots the ephemeral system\n\
         set default=0\n\
         set timeout=0\n\
         menuentry 'Ephemeral system' {{\n  \
           linux /{kernel} {parameters} {bootif}\n  \
           initrd /{initrd}\n\
         }}\n",
        hostname = system.ticket.hostname,
        kernel = system.kernel_path(),
        initrd = system.initrd_path(),
        parameters = escape(&system.parameters()),
        bootif = system.bootif(),
    )
}

/// The config that boots the machine's own disk: the first installed loader that is found, else the firmware's next entry.
#[must_use]
pub fn local(ticket: &Ticket) -> String {
    let mut config = format!(
        "# Hostler: {} boots from its own disk\nset default=0\nset timeout=0\nmenuentry 'Own disk' {{\n",
        ticket.hostname
    );
    for loader in INSTALLED {
        config.push_str(&format!(
            "  if search --no-floppy --set=root --file {loader}; then\n    chainloader ($root){loader}\n    boot\n  fi\n"
        ));
    }
    config.push_str("  exit 1\n}\n");
    config
}

/// Escapes what GRUB's shell would take for its own: quotes, braces, brackets of commands, variables, separators, patterns.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if matches!(c, '{' | '}' | '\'' | '"' | ';' | '(' | ')' | '?' | '&' | '$' | '\\' | '|' | '<' | '>' | '#') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
