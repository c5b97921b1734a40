//! MAAS's parameters of an IPMI BMC, checked once for both ways of speaking to it.

use actors::errand::{FaultKind, PowerFault};
use schema::{
    power::{PowerAccess, split_address},
    secret::Secret,
};

use crate::power::{
    fault,
    rmcp::{Login, Privilege, Suite, console::Quirks, console::USER_BYTES, crypto::KEY_BYTES},
};

/// A checked set of parameters.
#[derive(Debug)]
pub struct Target<'a> {
    pub host: String,
    /// `None`: 623.
    pub port: Option<u16>,
    pub user: &'a str,
    pub password: &'a str,
    /// 1 to 20 bytes, the last of them not zero.
    pub kg: Option<Vec<u8>>,
    pub privilege: Privilege,
    /// The one cipher suite to use, by its number.
    pub suite: Option<u8>,
    pub efi: bool,
    /// IPMI 1.5 is to be spoken.
    pub one_and_half: bool,
    pub quirks: Quirks,
}

impl<'a> Target<'a> {
    /// Checks the parameters of `access`.
    ///
    /// # Errors
    /// [`FaultKind::Unfit`] names the parameter, its value and its bound.
    pub fn check(access: &'a PowerAccess) -> Result<Self, PowerFault> {
        let unfit = |why: String, remedy: &str| fault(FaultKind::Unfit, why, remedy);
        let param = |name: &str| access.params.get(name).map_or("", String::as_str);
        let secret = |name: &str| access.secrets.get(name).map_or("", |s| s.expose().as_str());
        let (host, port) = split_address(param("power_address")).ok_or_else(|| {
            let why = format!("power_address \"{}\" is not HOST or HOST:PORT", param("power_address"));
            unfit(why, "set power_address to the BMC's IP address or name")
        })?;
        let suite = match param("cipher_suite_id") {
            "" => None,
            text => Some(text.parse().map_err(|_| {
                let why = format!("cipher_suite_id \"{text}\" is not a number of 0 to 255");
                unfit(why, "use 3, 8, 12 or 17, or leave it empty")
            })?),
        };
        let privilege = match param("privilege_level") {
            "" | "OPERATOR" => Privilege::Operator,
            "ADMIN" | "ADMINISTRATOR" => Privilege::Administrator,
            "USER" => Privilege::User,
            other => {
                let why = format!("privilege_level \"{other}\" is not known");
                return Err(unfit(why, "use USER, OPERATOR or ADMIN"));
            }
        };
        let kg = match secret("k_g") {
            "" => None,
            text => Some(kg_key(text).ok_or_else(|| {
                let why = "the BMC key k_g is not 1 to 20 bytes in hexadecimal".into();
                unfit(why, "give k_g as 0x and up to 40 hexadecimal digits")
            })?),
        };
        let user = param("power_user");
        if user.starts_with('-') || user.len() > USER_BYTES {
            let why = format!("power_user \"{user}\" begins with a hyphen or is longer than {USER_BYTES} bytes");
            return Err(unfit(why, "choose another user on the BMC"));
        }
        let password = secret("power_pass");
        if password.len() > KEY_BYTES {
            let why = format!("power_pass has {} bytes; IPMI knows at most {KEY_BYTES}", password.len());
            return Err(unfit(why, "choose a shorter password on the BMC"));
        }
        let quirks = quirks(param("workaround_flags")).map_err(|flag| {
            let why = format!("workaround_flags: \"{flag}\" is not known");
            unfit(why, &format!("use some of {}, separated by commas", FLAGS.join(", ")))
        })?;
        let (efi, one_and_half) = (param("power_boot_type") == "efi", param("power_driver") == "LAN");
        // A key of zeros is none (section 22.33).
        let kg = kg.filter(|key| !key.is_empty());
        Ok(Self { host, port, user, password, kg, privilege, suite, efi, one_and_half, quirks })
    }

    /// How the native way logs in.
    #[must_use]
    pub fn login(&self) -> Login {
        let suites = Suite::ALL.into_iter().filter(|suite| self.suite.is_none_or(|id| id == suite.id()));
        Login {
            user: self.user.into(),
            password: Secret::new(self.password.as_bytes().to_vec()),
            kg: self.kg.clone().map(Secret::new),
            privilege: self.privilege,
            suites: suites.collect(),
            quirks: self.quirks,
        }
    }
}

/// MAAS's flags. Those that only concern FreeIPMI's own ways change nothing here.
const FLAGS: [&str; 12] = [
    "none",
    "opensesspriv",
    "authcap",
    "integritycheckvalue",
    "nochecksumcheck",
    "idzero",
    "unexpectedauth",
    "forcepermsg",
    "endianseq",
    "intel20",
    "supermicro20",
    "sun20",
];

fn quirks(text: &str) -> Result<Quirks, &str> {
    let flags: Vec<_> = text.split([',', ' ']).filter(|flag| !flag.is_empty()).collect();
    if let Some(unknown) = flags.iter().find(|flag| !FLAGS.contains(flag)) {
        return Err(unknown);
    }
    Ok(Quirks {
        open_session_privilege: flags.contains(&"opensesspriv"),
        no_check_value: flags.contains(&"integritycheckvalue"),
        no_checksums: flags.contains(&"nochecksumcheck"),
        no_abilities: flags.contains(&"authcap"),
    })
}

/// The key's bytes without the zeros at its end, which mean nothing.
fn kg_key(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    if digits.is_empty() || !digits.len().is_multiple_of(2) || digits.len() > 2 * KEY_BYTES || !digits.is_ascii() {
        return None;
    }
    let mut bytes = Vec::new();
    for at in (0..digits.len()).step_by(2) {
        bytes.push(u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?);
    }
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use schema::{power::PowerType, secret::Secret};

    use super::*;

    #[test]
    fn keys_and_flags_parse() {
        assert_eq!(kg_key("0x616263").as_deref(), Some(&b"abc"[..]));
        assert_eq!(kg_key("61006200").as_deref(), Some(&b"a\0b"[..]));
        for wrong in ["0x", "0x6", "zz", &"61".repeat(21)] {
            assert_eq!(kg_key(wrong), None, "{wrong}");
        }
        assert_eq!(quirks(""), Ok(Quirks::default()));
        assert_eq!(quirks("none"), Ok(Quirks::default()));
        let both = Quirks { open_session_privilege: true, no_abilities: true, ..Quirks::default() };
        assert_eq!(quirks("opensesspriv, authcap sun20"), Ok(both));
        assert_eq!(quirks("opensesspriv,oops"), Err("oops"));
    }

    #[test]
    fn each_wrong_parameter_is_named() {
        let check = |name: &str, value: &str| {
            let mut access = PowerAccess {
                power_type: PowerType::Ipmi,
                params: [("power_address".to_owned(), "10.0.0.1".to_owned())].into(),
                secrets: [].into(),
            };
            if matches!(name, "k_g" | "power_pass") {
                access.secrets.insert(name.into(), Secret::new(value.into()));
            } else {
                access.params.insert(name.into(), value.into());
            }
            Target::check(&access).map(drop).map_err(|f| f.why)
        };
        let long = "x".repeat(21);
        for (name, value) in [
            ("power_address", "-x"),
            ("cipher_suite_id", "three"),
            ("privilege_level", "ROOT"),
            ("k_g", "0xz"),
            ("power_user", "-U"),
            ("power_user", long.as_str()),
            ("power_pass", long.as_str()),
            ("workaround_flags", "oops"),
        ] {
            let why = check(name, value).unwrap_err();
            assert!(why.contains(name), "{name}: {why}");
            assert!(name != "power_pass" || !why.contains(value), "a password in {why}");
        }
        assert_eq!(check("k_g", "0x0000"), Ok(()));
    }
}
