//! `users/`, `account/`, `accounts/authenticate/`: who there is, who I am, and the keys of one's own. Hashes leave the region never.

use actix_web::{HttpResponse, web::Data};
use schema::catalogue::{CatalogueItem, CatalogueKey, User};
use serde_json::{Value, json};

use super::{
    auth,
    call::{Answer, Call, gone, json},
    fault::Fault,
    house::House,
    params::Params,
    password, shape,
};

/// `users/`.
pub async fn all(call: Call) -> Answer {
    let me = call.user()?;
    let c = call.house.catalogue();
    match call.wants() {
        ("GET", "") => Ok(json(&Value::Array(c.users.values().map(shape::user).collect()))),
        ("GET", "whoami") => c.users.get(&me.username).map(|u| json(&shape::user(u))).ok_or_else(|| Fault::no("User")),
        ("POST", "") => create(&call).await,
        _ => Err(call.unknown()),
    }
}

async fn create(call: &Call) -> Answer {
    let by = call.admin()?.username.clone();
    let params = &call.params;
    let username = params.required("username")?.to_owned();
    let (email, password) = (params.required("email")?.to_owned(), params.required("password")?.to_owned());
    let is_superuser = params.truth("is_superuser")?.unwrap_or(false);
    if call.house.catalogue().users.contains_key(&username) {
        return Err(Fault::field("username", "A user with that username already exists."));
    }
    if username.len() > 150 || !username.chars().all(|c| c.is_alphanumeric() || "@.+-_".contains(c)) {
        return Err(Fault::field("username", "Use up to 150 letters, digits and @.+-_ only."));
    }
    let password_hash = hashed(password).await?;
    let user = User { username, email, is_superuser, password_hash, ssh_keys: Vec::new() };
    let shown = shape::user(&user);
    call.house.put(&by, vec![CatalogueItem::User(user)]).await?;
    Ok(json(&shown))
}

/// `users/<name>/`.
pub async fn one(call: Call) -> Answer {
    call.user()?;
    let c = call.house.catalogue();
    let user = c.users.get(call.part("username")).ok_or_else(|| Fault::no("User"))?;
    match call.wants() {
        ("GET", "") => Ok(json(&shape::user(user))),
        ("DELETE", "") => {
            let by = call.admin()?.username.clone();
            if by == user.username {
                return Err(Fault::Bad("An administrator cannot delete themselves; let another do it.".into()));
            }
            call.house.remove(&by, CatalogueKey::User(user.username.clone())).await?;
            Ok(gone())
        }
        _ => Err(call.unknown()),
    }
}

/// `account/`: the keys of the caller.
pub async fn account(call: Call) -> Answer {
    let me = call.user()?.username.clone();
    let c = call.house.catalogue();
    let own =
        |token: &str| c.api_keys.get(token).filter(|k| k.username == me).cloned().ok_or_else(|| Fault::no("Token"));
    match call.wants() {
        ("POST", "create_authorisation_token") => {
            let name = call.params.filled("name").unwrap_or("MAAS consumer").to_owned();
            let (value, _) = minted(&call.house, &me, &name).await?;
            Ok(json(&value))
        }
        ("GET", "list_authorisation_tokens") => {
            // The secret is not kept, so it cannot be shown again.
            let mine = c.api_keys.values().filter(|k| k.username == me);
            let shown = mine.map(|k| json!({"name": k.name, "token": format!("{}:{}:…", k.consumer_key, k.token_key)}));
            Ok(json(&Value::Array(shown.collect())))
        }
        ("POST", "delete_authorisation_token") => {
            let key = own(call.params.required("token_key")?)?;
            call.house.remove(&me, CatalogueKey::ApiKey(key.token_key)).await?;
            Ok(gone())
        }
        ("POST", "update_token_name") => {
            let token = call.params.required("token")?;
            let mut key = own(token.split(':').nth(1).unwrap_or(token))?;
            call.params.required("name")?.clone_into(&mut key.name);
            call.house.put(&me, vec![CatalogueItem::ApiKey(key)]).await?;
            Ok(HttpResponse::Accepted().content_type("text/plain; charset=utf-8").body("Accepted"))
        }
        _ => Err(call.unknown()),
    }
}

/// A new key of that user: MAAS's answer to it, and the text form.
async fn minted(house: &House, username: &str, name: &str) -> Result<(Value, String), Fault> {
    let (key, text) = auth::new_key(username, name);
    let secret = text.rsplit(':').next().unwrap_or_default();
    let value = json!({
        "name": name, "consumer_key": key.consumer_key, "token_key": key.token_key, "token_secret": secret,
    });
    house.put(username, vec![CatalogueItem::ApiKey(key)]).await?;
    Ok((value, text))
}

/// POST `/MAAS/accounts/authenticate/`: a key for user name and password. Secrets are kept as hashes, so each call makes a new key;
/// with `consumer` it takes the place of the one of that name.
pub async fn authenticate(house: Data<House>, body: actix_web::web::Bytes, request: actix_web::HttpRequest) -> Answer {
    let content_type = request.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
    let params = Params::body(content_type, body).await?;
    let (username, password) = (params.required("username")?.to_owned(), params.required("password")?.to_owned());
    let c = house.catalogue();
    let stored = c.users.get(&username).map(|u| u.password_hash.clone());
    if !verified(password, stored).await? {
        return Err(Fault::Forbidden(String::new()));
    }
    let name = params.filled("consumer").unwrap_or("MAAS consumer").to_owned();
    let same =
        c.api_keys.values().find(|k| k.username == username && k.name == name && params.filled("consumer").is_some());
    if let Some(old) = same {
        house.remove(&username, CatalogueKey::ApiKey(old.token_key.clone())).await?;
    }
    let (value, _) = minted(&house, &username, &name).await?;
    Ok(json(&value))
}

async fn hashed(password: String) -> Result<String, Fault> {
    let done = actix_web::web::block(move || password::hash(&password)).await.map_err(|_| busy())?;
    done.map_err(|e| Fault::unavailable(format!("The password could not be hashed: {e}."), "Try again."))
}

pub(super) async fn verified(password: String, stored: Option<String>) -> Result<bool, Fault> {
    actix_web::web::block(move || password::verify(&password, stored.as_deref())).await.map_err(|_| busy())
}

fn busy() -> Fault {
    Fault::unavailable("The region is too busy to check a password.", "Try again.")
}
