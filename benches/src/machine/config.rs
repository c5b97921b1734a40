//! Boot configs as loaders read them: which kernel, which initrd, which command line. Reads just what ours contain.

/// Whose language a config is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Pxelinux,
    Grub,
    Ipxe,
}

/// What a boot config said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booted {
    /// Where the kernel is: a URL, or a path of the server that the loader came from.
    pub kernel: String,
    pub initrd: String,
    pub cmdline: String,
    /// By `root=squash:`; a system may be whole in its initrd.
    pub squashfs: Option<String>,
    /// By `cloud-config-url=`.
    pub preseed: String,
}

/// Reads a config. `mac`: the boot interface, dashed, which PXELINUX appends itself.
///
/// # Errors
/// A text: what is missing. A machine that is told to boot from its disk gets "its own disk".
pub(super) fn read(dialect: Dialect, text: &str, mac: &str) -> Result<Booted, String> {
    let after = |word: &str| {
        let rest = text.lines().find_map(|line| line.trim_start().strip_prefix(word)?.strip_prefix(' '));
        rest.map(|rest| rest.trim().trim_end_matches("|| goto again").trim_end().to_owned())
    };
    let missing =
        |what: &str| format!("the boot config names no {what}: {}", text.chars().take(120).collect::<String>());
    let (kernel, initrd, cmdline) = match dialect {
        Dialect::Pxelinux if after("LOCALBOOT").is_some() => return Err("its own disk".into()),
        Dialect::Pxelinux => {
            let append = after("APPEND").ok_or_else(|| missing("command line"))?;
            let append =
                if after("IPAPPEND").as_deref() == Some("2") { format!("{append} BOOTIF=01-{mac}") } else { append };
            (after("KERNEL"), after("INITRD"), append)
        }
        Dialect::Grub if after("chainloader").is_some() => return Err("its own disk".into()),
        Dialect::Grub => {
            let line = after("linux").ok_or_else(|| missing("kernel"))?;
            let (kernel, cmdline) = line.split_once(' ').unwrap_or((&line, ""));
            (Some(kernel.to_owned()), after("initrd"), unescape(cmdline))
        }
        Dialect::Ipxe if after("sanboot").is_some() => return Err("its own disk".into()),
        Dialect::Ipxe => {
            let args = after("imgargs").ok_or_else(|| missing("command line"))?;
            (after("kernel"), after("initrd"), args.split_once(' ').map_or(String::new(), |(_, rest)| rest.to_owned()))
        }
    };
    let word = |key: &str| cmdline.split_ascii_whitespace().find_map(|w| w.strip_prefix(key)).map(str::to_owned);
    Ok(Booted {
        kernel: kernel.ok_or_else(|| missing("kernel"))?,
        initrd: initrd.ok_or_else(|| missing("initrd"))?,
        squashfs: word("root=squash:"),
        preseed: word("cloud-config-url=").ok_or_else(|| missing("preseed"))?,
        cmdline,
    })
}

/// GRUB's shell takes a backslash's next character as it is.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut escaped = false;
    for c in text.chars() {
        escaped = c == '\\' && !escaped;
        if !escaped {
            out.push(c);
        }
    }
    out
}
