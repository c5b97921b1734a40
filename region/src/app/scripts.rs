//! The built-in scripts as entries of the catalogue: put in by `init`, brought up to date at each start.

use actors::catalogue::{CatalogueEvent, Table, next_id};
use schema::{
    catalogue::{Catalogue, CatalogueItem, Script},
    script::ScriptType,
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
        let header = shipped.header;
        items.push(CatalogueItem::Script(Script {
            id,
            version,
            name: shipped.name.into(),
            title: header.title.clone(),
            description: header.description.clone(),
            tags: header.tags.clone(),
            script_type: header.script_type.unwrap_or(ScriptType::Commissioning),
            hardware_type: header.hardware_type,
            parallel: header.parallel,
            timeout_s: header.timeout_s,
            packages: "{}".into(),
            may_reboot: header.may_reboot,
            default: true,
            body,
        }));
    }
    Ok(items)
}
