//! How options are read: what does not fit is told its bound and an example, in the one error that clap then prints with option and value.

/// Reads a whole number between bounds.
pub fn whole<T: TryFrom<u64>>(
    least: u64,
    most: u64,
    example: &'static str,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync {
    move |text| {
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| format!("it is a whole number from {least} to {most}; give one, as in {example}"))
    }
}

/// Reads a number of seconds between bounds.
pub fn seconds(
    least: f64,
    most: f64,
    example: &'static str,
) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync {
    move |text| {
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| format!("it is a number of seconds from {least} to {most}; give one, as in {example}"))
    }
}

/// Reads what divides the simulated machines' own delays.
///
/// # Errors
/// What it must be.
pub fn speed(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "it is 0 (no delays) or a number above it; give one, as in 10".into())
}

/// Reads a port that a yard may take.
///
/// # Errors
/// What it must be.
pub fn yard_port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| !(1..1_024).contains(port));
    port.ok_or_else(|| {
        "it is 0 (a free one) or from 1024 to 65535, since a yard takes no privileged port; give one, as in 5240".into()
    })
}

/// Reads a name; an empty one is that of a variable that was not set.
///
/// # Errors
/// What it must be.
pub fn named(text: &str) -> Result<String, String> {
    let given = (!text.trim().is_empty()).then(|| text.to_owned());
    given.ok_or_else(|| "it is empty; give a name, a path or an id".into())
}
