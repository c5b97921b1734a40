//! Finding domains and names by what clients write: ids, names, full names. Pure.

use schema::{
    catalogue::{Catalogue, DnsResource, Domain},
    dns::DnsName,
};

use crate::api::{fault::Fault, params::Params};

/// A domain by id or name.
#[must_use]
pub fn domain<'a>(c: &'a Catalogue, text: &str) -> Option<&'a Domain> {
    let text = text.trim();
    let by_name = || c.domains.values().find(|d| text.parse::<DnsName>().is_ok_and(|name| d.name == name));
    text.parse().ok().and_then(|id: i64| c.domains.get(&id)).or_else(by_name)
}

/// The domain and the name in it that `fqdn`, or `name` and `domain`, say; of these two what is not given is that of `own`. `@` is the
/// domain itself.
///
/// # Errors
/// 400 with the fields that are missing or wrong.
pub fn place<'a>(c: &'a Catalogue, params: &Params, own: Option<&DnsResource>) -> Result<(&'a Domain, String), Fault> {
    if let Some(text) = params.filled("fqdn") {
        let wrong = |why: String| Fault::field("fqdn", why);
        let fqdn: DnsName = text.parse().map_err(|e| wrong(format!("{e}.")))?;
        let holders = c.domains.values().filter(|d| fqdn.within(&d.name));
        let holder = holders.max_by_key(|d| d.name.as_str().len());
        let holder = holder.ok_or_else(|| wrong(format!("No domain holds {fqdn}; make it with domains/.")))?;
        let name = fqdn.as_str().strip_suffix(holder.name.as_str()).unwrap_or_default().trim_end_matches('.');
        return Ok((holder, if name.is_empty() { "@".into() } else { name.to_owned() }));
    }
    let name = match (params.filled("name"), own) {
        (None, Some(own)) => own.name.clone(),
        _ => params.required("name")?.to_ascii_lowercase(),
    };
    let holder = match (params.filled("domain"), own) {
        (None, Some(own)) => c.domains.get(&own.domain),
        _ => domain(c, params.required("domain")?),
    };
    let holder = holder.ok_or_else(|| Fault::field("domain", "There is no such domain; see domains/."))?;
    Ok((holder, name))
}

/// Whether a resource is among those that a listing's parameters ask for.
#[must_use]
pub fn wanted(c: &Catalogue, params: &Params, resource: &DnsResource) -> bool {
    let of = |field: &str, admits: &dyn Fn(&str) -> bool| params.filled(field).is_none_or(admits);
    let fqdn = c.fqdn(resource);
    of("fqdn", &|text| text.parse::<DnsName>().ok() == fqdn)
        && of("name", &|text| text.eq_ignore_ascii_case(&resource.name))
        && of("domain", &|text| domain(c, text).is_some_and(|d| d.id == resource.domain))
}
