//! Images, boot loaders and the bodies behind them: uploaded by content, named in the catalogue. Bytes stream to the region's disk.

use std::io::Write;

use actix_web::{HttpResponse, web};
use actors::catalogue::Table;
use futures_util::StreamExt;
use schema::{
    boot::{BodyRef, BootFile, Image, Sha256},
    catalogue::{Catalogue, CatalogueImage, CatalogueItem, CatalogueKey},
};
use serde_json::{Value, json};

use super::{
    call::{Admin, Answer, Call, Own, OwnAnswer, gone, json},
    fault::{Fault, Faults},
    house::unkept,
    params::Params,
    shape::ROOT,
};

/// The longest body that is taken in, in bytes: 8 GiB.
const LONGEST: u64 = 8 << 30;

/// PUT `/images/bodies/<sha256>`: the bytes of a body. What is there already is answered at once.
pub async fn upload(admin: Admin, path: web::Path<String>, mut payload: web::Payload) -> OwnAnswer {
    let sha256: Sha256 = path.parse().map_err(|why: String| Fault::field("sha256", why))?;
    if let Some(len) = admin.house.body_len(sha256) {
        return Ok(json(&json!({"sha256": sha256, "len": len, "held": true})));
    }
    let mut writer = admin.house.new_body()?;
    let mut len = 0;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|e| Fault::Bad(format!("The upload broke off: {e}; send it again.")))?;
        len += chunk.len() as u64;
        if len > LONGEST {
            return Err(Fault::TooLarge(format!("The body is longer than {LONGEST} bytes.")).into());
        }
        writer = blocking(move || writer.write_all(&chunk).map(|()| writer)).await?.map_err(|e| {
            Fault::unavailable(
                format!("The body was not kept: {e}."),
                "Make room on the region's disk, and send it again.",
            )
        })?;
    }
    blocking(move || writer.finish(Some(BodyRef { sha256, len }))).await?.map_err(|e| unkept(&e))?;
    tracing::info!(by = %admin.caller.username, %sha256, len, "a body was uploaded");
    Ok(HttpResponse::Created()
        .content_type("application/json")
        .body(json!({"sha256": sha256, "len": len, "held": false}).to_string()))
}

/// Disks are waited for off the workers' threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    web::block(work).await.map_err(|_| Fault::unavailable("The region is stopping.", "Send it again later."))
}

/// GET `/images/bodies/<sha256>`: whether it is here.
pub async fn body(admin: Admin, path: web::Path<String>) -> OwnAnswer {
    let sha256: Sha256 = path.parse().map_err(|why: String| Fault::field("sha256", why))?;
    let len = admin.house.body_len(sha256).ok_or_else(|| Fault::NotFound(format!("Body {sha256} is not here.")))?;
    Ok(json(&json!({"sha256": sha256, "len": len})))
}

/// `/images`: GET lists; POST adds one whose bodies are uploaded.
pub async fn all(Own(call): Own) -> OwnAnswer {
    match call.wants().0 {
        "GET" => {
            call.user()?;
            let c = call.house.catalogue();
            Ok(json(&Value::Array(c.images.values().map(image).collect())))
        }
        "POST" => {
            let by = call.admin()?.username.clone();
            let _edit = call.house.editing().await;
            let c = call.house.catalogue();
            let added = new_image(&call, &c)?;
            let shown = image(&added);
            call.house.put(&by, vec![CatalogueItem::Image(added)]).await?;
            Ok(json(&shown))
        }
        _ => Err(call.unknown().into()),
    }
}

/// DELETE `/images/<id>`.
pub async fn one(Own(call): Own) -> OwnAnswer {
    let c = call.house.catalogue();
    let wanted = call.part("id");
    let found = c.images.values().find(|i| i.id.to_string() == wanted || i.image.name == wanted);
    let found = found.ok_or_else(|| Fault::NotFound(format!("There is no image {wanted}.")))?;
    match call.wants().0 {
        "GET" => {
            call.user()?;
            Ok(json(&image(found)))
        }
        "DELETE" => {
            let by = call.admin()?.username.clone();
            call.house.remove(&by, CatalogueKey::Image(found.id)).await?;
            Ok(gone())
        }
        _ => Err(call.unknown().into()),
    }
}

fn image(i: &CatalogueImage) -> Value {
    let m = &i.image;
    json!({
        "id": i.id, "name": m.name, "arch": m.arch, "default": i.default, "kernel": m.kernel, "initrd": m.initrd,
        "squashfs": m.squashfs, "kernel_params": m.kernel_params,
    })
}

/// A body that a field names by SHA-256 and that was uploaded.
fn named_body(call: &Call, name: &str, required: bool) -> Result<Option<BodyRef>, Fault> {
    let Some(text) = call.params.filled(name) else {
        return if required {
            Err(Fault::field(name, "This field is required: the SHA-256 of the uploaded body."))
        } else {
            Ok(None)
        };
    };
    let sha256: Sha256 = text.parse().map_err(|why: String| Fault::field(name, why))?;
    let len = call.house.body_len(sha256);
    let missing =
        || Fault::field(name, format!("Body {sha256} was not uploaded; PUT it to /images/bodies/{sha256} first."));
    len.map(|len| Some(BodyRef { sha256, len })).ok_or_else(missing)
}

fn new_image(call: &Call, c: &Catalogue) -> Result<CatalogueImage, Fault> {
    let params = &call.params;
    let mut faults = Faults::default();
    let name = faults.take(params.required("name")).unwrap_or_default().to_owned();
    let parts: Vec<_> = name.split('/').collect();
    let plain = |p: &&str| !p.is_empty() && p.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    if !name.is_empty() && (parts.len() != 4 || !parts.iter().all(plain)) {
        faults.add("name", format!("\"{name}\" is not OS/RELEASE/ARCH/FLAVOUR, as in debian/bookworm/amd64/generic."));
    }
    let arch = params.filled("arch").or(parts.get(2).copied()).unwrap_or_default().to_owned();
    let kernel = faults.take(named_body(call, "kernel", true)).flatten();
    let initrd = faults.take(named_body(call, "initrd", true)).flatten();
    let squashfs = faults.take(named_body(call, "squashfs", false)).flatten();
    let kernel_params = params.get("kernel_params").unwrap_or_default().trim().to_owned();
    if !kernel_params.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        faults.add("kernel_params", "Kernel parameters are one line of printable ASCII.");
    }
    let default = faults.take(params.truth("default")).flatten();
    faults.check()?;
    let (Some(kernel), Some(initrd)) = (kernel, initrd) else {
        return Err(Fault::field("kernel", "This field is required."));
    };
    // The same name takes the place of the old one.
    let old = c.images.values().find(|i| i.image.name == name);
    let id = old.map_or_else(|| call.house.next_id(Table::Images), |i| i.id);
    let first = !c.images.values().any(|i| i.image.arch == arch && i.default);
    let default = default.unwrap_or_else(|| first || old.is_some_and(|i| i.default));
    Ok(CatalogueImage { id, image: Image { name, arch, kernel, initrd, squashfs, kernel_params }, default })
}

/// `/images/loaders`: GET lists; POST names an uploaded body as the boot file `name`.
pub async fn loaders(Own(call): Own) -> OwnAnswer {
    let c = call.house.catalogue();
    match call.wants().0 {
        "GET" => {
            call.user()?;
            Ok(json(&Value::Array(c.boot_files.values().map(|f| json!({"name": f.name, "body": f.body})).collect())))
        }
        "POST" => {
            let by = call.admin()?.username.clone();
            let name = file_name(&call.params)?;
            let body =
                named_body(&call, "body", true)?.ok_or_else(|| Fault::field("body", "This field is required."))?;
            let file = BootFile { name, body };
            let shown = json!({"name": file.name, "body": file.body});
            call.house.put(&by, vec![CatalogueItem::BootFile(file)]).await?;
            Ok(json(&shown))
        }
        _ => Err(call.unknown().into()),
    }
}

/// A relative path that firmware may ask for.
fn file_name(params: &Params) -> Result<String, Fault> {
    let name = params.required("name")?.trim_start_matches('/').to_owned();
    let plain = |p: &str| !p.is_empty() && p != "." && p != ".." && p.bytes().all(|b| b.is_ascii_graphic());
    if name.len() > 127 || !name.split('/').all(plain) {
        let message = format!(
            "\"{name}\" is not a boot file name: printable, relative, at most 127 characters (RFC 2131 section 2)."
        );
        return Err(Fault::field("name", message));
    }
    Ok(name)
}

/// `boot-resources/`: the same images in MAAS's form.
pub async fn boot_resources(call: Call) -> Answer {
    call.user()?;
    match call.wants() {
        ("GET", "") => Ok(json(&Value::Array(call.house.catalogue().images.values().map(boot_resource).collect()))),
        ("GET", "is_importing") => Ok(json(&json!(false))),
        ("POST", _) => {
            Err(Fault::conflict("Uploads in MAAS's form come with a later version.", "Use `hostler image add`."))
        }
        _ => Err(call.unknown()),
    }
}

fn boot_resource(i: &CatalogueImage) -> Value {
    let parts: Vec<_> = i.image.name.split('/').collect();
    let part = |at: usize| parts.get(at).copied().unwrap_or_default();
    json!({
        "id": i.id, "type": "Uploaded", "name": format!("{}/{}", part(0), part(1)),
        "architecture": format!("{}/{}", i.image.arch, part(3)), "subarches": part(3), "kflavor": part(3),
        "title": i.image.name, "resource_uri": format!("{ROOT}/boot-resources/{}/", i.id),
    })
}
