//! The API: this route table is its table of contents. What each path does stands in the module that the path names.
//!
//! Under `/MAAS/api/2.0/` the paths, parameters and answers are MAAS's; beside it are Hostler's own. Handlers read a [`call::Call`],
//! look things up and tell actors through [`house::House`], and draw answers with [`shape`].

use std::net::SocketAddr;

use actix_web::{
    App as WebApp, HttpServer,
    body::MessageBody,
    dev::{Server, ServerHandle, ServiceRequest, ServiceResponse},
    middleware::{Next, from_fn},
    web::{self, Data, PayloadConfig, ServiceConfig, get, post, put, resource, route},
};
use actors::{clock, shell::Source};

pub mod annex;
pub mod auth;
pub mod call;
pub mod domains;
pub mod events;
pub mod explain;
pub mod fault;
pub mod fleet;
pub mod front;
pub mod hostname;
pub mod house;
pub mod images;
pub mod inspect;
pub mod legible;
pub mod logs;
pub mod machines;
pub mod metrics;
pub mod network;
pub mod nodes;
pub mod oauth;
pub mod params;
pub mod password;
pub mod racks;
pub mod scripts;
pub mod settings;
pub mod shape;
pub mod users;
pub mod version;

use house::House;
use network::{ranges, subnets};

/// A resource of the MAAS API: with and without the trailing slash (never a redirect: it would turn a POST into a GET), and with the
/// operation as a path suffix.
macro_rules! maas {
    ($config:expr, $($path:literal => $handler:path),* $(,)?) => {$(
        $config.service(
            resource([concat!("/MAAS/api/2.0/", $path, "/"), concat!("/MAAS/api/2.0/", $path), concat!("/MAAS/api/2.0/", $path, "/op-{op}")])
                .route(route().to($handler)),
        );
    )*};
}

/// Every route.
pub fn routes(config: &mut ServiceConfig) {
    maas!(config,
        "version" => version::version,
        "account" => users::account,
        "users" => users::all,
        "users/{username}" => users::one,
        "machines" => machines::all,
        "machines/{system_id}" => machines::one,
        "nodes" => machines::nodes,
        "nodes/{system_id}" => machines::one,
        "nodes/{system_id}/results" => nodes::results,
        "nodes/{system_id}/results/{set}" => nodes::result,
        "nodes/{system_id}/interfaces" => nodes::interfaces,
        "nodes/{system_id}/interfaces/{interface}" => nodes::interfaces,
        "nodes/{system_id}/blockdevices" => nodes::block_devices,
        "nodes/{system_id}/blockdevices/{device}" => nodes::block_devices,
        "events" => events::all,
        "rackcontrollers" => racks::all,
        "rackcontrollers/{system_id}" => racks::one,
        "fabrics" => network::fabrics,
        "fabrics/{fabric_id}" => network::fabric,
        "fabrics/{fabric_id}/vlans" => network::vlans,
        "fabrics/{fabric_id}/vlans/{vid}" => network::vlan,
        "vlans/{vlan_id}" => network::vlan,
        "subnets" => subnets::all,
        // A network has a slash in it.
        "subnets/{subnet_id:[^/]+/\\d+|[^/]+}" => subnets::one,
        "ipranges" => ranges::all,
        "ipranges/{range_id}" => ranges::one,
        "reservedips" => ranges::reserved_all,
        "reservedips/{reserved_id}" => ranges::reserved_one,
        "scripts" => scripts::all,
        "scripts/{name}" => scripts::one,
        "domains" => domains::all,
        "domains/{domain_id}" => domains::one,
        "dnsresources" => domains::resources::all,
        "dnsresources/{resource_id}" => domains::resources::one,
        "dnsresourcerecords" => domains::records::all,
        "dnsresourcerecords/{record_id}" => domains::records::one,
        "maas" => settings::maas,
        "boot-resources" => images::boot_resources,
    );
    config
        .route("/MAAS/api/version/", get().to(version::api_version))
        .route("/MAAS/api/version", get().to(version::api_version))
        .route("/MAAS/api/1.0/{rest:.*}", route().to(version::old))
        .route("/MAAS/accounts/authenticate/", post().to(users::authenticate));
    // Hostler's own.
    inspect::routes(config);
    config
        .route("/", get().to(front::index))
        .route("/live", get().to(front::live))
        .route("/explain/{system_id}", get().to(front::explain))
        .route("/login", get().to(front::once))
        .route("/MAAS/accounts/login/", post().to(front::login))
        .route("/front.css", get().to(front::style))
        .route("/front.js", get().to(front::script))
        .route("/fleet", get().to(fleet::show))
        .route("/annex/{name}/{system_id}", post().to(annex::call))
        .route("/images", route().to(images::all))
        .route("/images/loaders", route().to(images::loaders))
        .route("/images/bodies/{sha256}", put().to(images::upload))
        .route("/images/bodies/{sha256}", get().to(images::body))
        .route("/images/{id:.*}", route().to(images::one))
        .route("/logs/{machine}", get().to(logs::show))
        .route("/racks/tokens", get().to(racks::tokens))
        .route("/racks/tokens", post().to(racks::token))
        .route("/metrics", get().to(metrics::show))
        .route("/healthz", get().to(version::alive))
        .route("/readyz", get().to(version::ready));
    config.default_service(web::to(version::nowhere));
}

/// What a request tells an actor comes from the API; how long it took is counted.
async fn served(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let (house, began) = (request.app_data::<Data<House>>().cloned(), clock::tick());
    let answer = Source::new("api", "").scope(next.call(request)).await?;
    if let Some(house) = house {
        // A path that no route has would be a label that anyone can choose.
        let route = answer.request().match_pattern().unwrap_or_else(|| "none".into());
        house.app.requests.note(&route, answer.status().as_u16(), began.elapsed());
    }
    Ok(answer)
}

/// What the inspection's own listener has.
fn inspection_routes(config: &mut ServiceConfig) {
    inspect::routes(config);
    config.route("/healthz", get().to(version::alive)).default_service(web::to(version::nowhere));
}

/// A running API.
pub struct Running {
    /// Where it listens; with port 0 asked for, the port it was given.
    pub address: SocketAddr,
    /// Where the inspection listens by itself, if it does.
    pub inspect: Option<SocketAddr>,
    handles: Vec<ServerHandle>,
}

impl Running {
    /// Finishes the requests under way and stops.
    pub async fn stop(self) {
        futures_util::future::join_all(self.handles.iter().map(|handle| handle.stop(true))).await;
    }
}

/// Why the API does not start.
#[derive(Debug, thiserror::Error)]
#[error("the API cannot listen on {address}: {source}; choose another {setting}, or stop what holds the port")]
pub struct StartError {
    pub address: SocketAddr,
    /// The setting that names that address.
    pub setting: &'static str,
    #[source]
    pub source: std::io::Error,
}

/// Serves the API at that address (port 0 takes a free one) until it is stopped. Call it within an actix or tokio runtime.
///
/// # Errors
/// [`StartError`] when the address cannot be had.
pub fn start(app: crate::app::App, address: SocketAddr) -> Result<Running, StartError> {
    start_with(app, address, annex::Annexes::new())
}

/// As [`start`], with operations of the program around the region.
///
/// # Errors
/// As [`start`].
pub fn start_with(app: crate::app::App, address: SocketAddr, annexes: annex::Annexes) -> Result<Running, StartError> {
    let inspect = app.config.inspect_listen;
    let house = Data::new(House::new(app, annexes));
    let failed = |address, setting| move |source| StartError { address, setting, source };
    // Both ports first: none answers alone when the other cannot be had.
    let (address, api) = bound(&house, address, 2, routes).map_err(failed(address, "api.listen"))?;
    // One thread, with a runtime of its own: it answers while the API's and all others have too much to do.
    let own = inspect.map(|at| bound(&house, at, 1, inspection_routes).map_err(failed(at, "inspect.listen")));
    let (inspect, own) = own.transpose()?.unzip();
    let mut handles = vec![run(api)];
    handles.extend(own.map(run));
    Ok(Running { address, inspect, handles })
}

/// A server that has its port and does not serve yet.
fn bound(
    house: &Data<House>,
    address: SocketAddr,
    threads: usize,
    routes: fn(&mut ServiceConfig),
) -> std::io::Result<(SocketAddr, impl FnOnce() -> Server + use<>)> {
    let house = house.clone();
    let server = HttpServer::new(move || {
        WebApp::new()
            .app_data(house.clone())
            .app_data(PayloadConfig::new(params::BODY_LIMIT))
            .wrap(from_fn(served))
            .wrap(from_fn(legible::legible))
            .configure(routes)
    });
    let server = server.disable_signals().workers(threads).shutdown_timeout(5).bind(address)?;
    let address = server.addrs().first().copied().unwrap_or(address);
    Ok((address, move || server.run()))
}

fn run(server: impl FnOnce() -> Server) -> ServerHandle {
    let server = server();
    let handle = server.handle();
    tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the API ended");
        }
    });
    handle
}
