//! How objects look in the MAAS API: pure functions from nouns to JSON, all keys always present. Reads nothing.

pub mod dns;
pub mod hardware;
pub mod machine;
pub mod network;
pub mod results;

use schema::time::Timestamp;
use serde_json::{Value, json};

/// The path in front of every `resource_uri`.
pub const ROOT: &str = "/MAAS/api/2.0";

/// MAAS's point in time: naive, UTC, always with a fraction.
#[must_use]
pub fn when(at: Timestamp) -> String {
    let text = at.to_string();
    text.trim_end_matches('Z').to_owned()
}

/// MAAS's point in time in events: `Wed, 04 Mar. 2026 05:06:07`.
#[must_use]
pub fn event_when(at: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (year, month, day, hour, minute, second) = at.civil();
    let weekday = usize::try_from(at.seconds().div_euclid(86_400).rem_euclid(7)).unwrap_or(0);
    let month = MONTHS.get(month.saturating_sub(1) as usize).copied().unwrap_or("Jan");
    format!("{}, {day:02} {month}. {year:04} {hour:02}:{minute:02}:{second:02}", DAYS[weekday])
}

/// A span as `H:MM:SS`, as MAAS shows run times.
#[must_use]
pub fn span(ms: u64) -> String {
    let s = ms / 1_000;
    format!("{}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60)
}

/// A zone; the default one when the name is empty.
#[must_use]
pub fn zone(name: &str) -> Value {
    let name = if name.is_empty() { "default" } else { name };
    json!({"id": 1, "name": name, "description": "", "resource_uri": format!("{ROOT}/zones/{name}/")})
}

/// A resource pool; the default one when the name is empty.
#[must_use]
pub fn pool(name: &str) -> Value {
    let name = if name.is_empty() { "default" } else { name };
    json!({"id": 0, "name": name, "description": "Default pool", "resource_uri": format!("{ROOT}/resourcepool/0/")})
}

/// A user.
#[must_use]
pub fn user(user: &schema::catalogue::User) -> Value {
    json!({
        "username": user.username, "email": user.email, "is_local": true, "is_superuser": user.is_superuser,
        "resource_uri": format!("{ROOT}/users/{}/", user.username),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_form_that_strict_clients_parse() {
        let at = Timestamp(1_772_600_767_890_000);
        assert_eq!(when(at), "2026-03-04T05:06:07.890");
        assert_eq!(event_when(at), "Wed, 04 Mar. 2026 05:06:07");
        assert_eq!(event_when(Timestamp(0)), "Thu, 01 Jan. 1970 00:00:00");
        assert_eq!(span(90_500), "0:01:30");
    }
}
