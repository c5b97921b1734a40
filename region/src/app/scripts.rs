//! Scripts as entries of the catalogue. The built-in ones are put in by `init` and brought up to date at each start.

use actors::catalogue::{CatalogueEvent, Table, next_id};
use schema::{
    boot::BodyRef,
    catalogue::{Catalogue, CatalogueItem, Script},
    script::{ScriptType, header::ScriptHeader},
};

use super::{App, StartError, new_trace};
use crate::{
    bodies::{Bodies, BodyError},
    builtin,
};

impl App {
    /// Puts built-in scripts of this version in place of those of an older one.
    pub(super) async fn keep_builtin_scripts(&self) -> Result<(), StartError> {
        let items = builtin_items(&self.catalogue_content(), &self.bodies)?;
        if !items.is_empty() {
            let event = CatalogueEvent::PutAll { by: "hostler".into(), items };
            self.change_catalogue(event, new_trace()).await?;
        }
        Ok(())
    }
}

/// The built-in scripts that the catalogue lacks, or has with another text; their texts are put into the body store.
pub(crate) fn builtin_items(c: &Catalogue, bodies: &Bodies) -> Result<Vec<CatalogueItem>, BodyError> {
    let mut next = next_id(c, Table::Scripts);
    let mut items = Vec::new();
    // A header that does not parse is a defect that a test of `builtin` catches.
    for shipped in builtin::scripts().unwrap_or_default() {
        let body = bodies.put(shipped.text.as_bytes())?;
        let known = c.scripts.values().find(|s| s.name == shipped.name);
        if known.is_some_and(|s| s.body == body) {
            continue;
        }
        let (id, version) = known.map_or((next, 1), |s| (s.id, s.version + 1));
        next += i64::from(known.is_none());
        items.push(CatalogueItem::Script(entry(id, version, shipped.name, shipped.header, true, body)));
    }
    Ok(items)
}

/// The catalogue's entry of a script with that header. Without a type it is a commissioning script.
pub(crate) fn entry(id: i64, version: i64, name: &str, header: ScriptHeader, default: bool, body: BodyRef) -> Script {
    Script {
        id,
        version,
        name: name.into(),
        title: header.title,
        description: header.description,
        tags: header.tags,
        script_type: header.script_type.unwrap_or(ScriptType::Commissioning),
        hardware_type: header.hardware_type,
        parallel: header.parallel,
        timeout_s: header.timeout_s,
        packages: serde_json::Value::Object(header.packages).to_string(),
        may_reboot: header.may_reboot,
        default,
        body,
    }
}
