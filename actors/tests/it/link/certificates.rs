//! Who is not let in, and that both sides are told why.

use std::time::Duration;

use actors::{
    clock,
    link::{
        LinkError,
        ca::{Ca, RackIdentity},
        enrol::{self, Token},
    },
};
use rcgen::{CertificateParams, KeyPair};

use super::{Rack, Region};

fn why(error: LinkError) -> String {
    let LinkError::Peer { refusal, .. } = error else { panic!("{error}") };
    assert!(!refusal.remedy.is_empty());
    refusal.why
}

/// An identity made by that CA, without enrolment.
fn identity(signer: &Ca, trusted: &Ca, age: Duration, validity: Duration) -> RackIdentity {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let issued = signer.issue(request.der(), "rack-1", clock::now() - age, validity).unwrap();
    let ca = trusted.certificate().to_vec();
    RackIdentity::new("4y3h7n".parse().unwrap(), issued.certificate.to_vec(), key.serialize_der(), ca)
}

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn wrong_and_used_tokens_are_refused_with_a_reason_on_both_sides() {
    let region = Region::new();
    let wrong = Token::mint(region.server.ca(), [9; 24]);
    let error = enrol::enrol(&region.address(), &wrong, "rack-1", "0.1.0").await.err().unwrap();
    assert_eq!(why(error), "the token is not known");
    region.keeper.reason("the token is not known").await;

    region.enrol().await;
    let used = Token::mint(region.server.ca(), [1; 24]);
    let error = enrol::enrol(&region.address(), &used, "rack-1", "0.1.0").await.err().unwrap();
    assert_eq!(why(error), "the token was used before");
    region.keeper.reason("the token was used before").await;
}

#[tokio::test]
async fn a_token_of_another_region_never_reaches_this_one() {
    let region = Region::new();
    let foreign = Token::mint(&Ca::create(clock::now()).unwrap(), [1; 24]);
    region.keeper.allow(&foreign);
    let error = enrol::enrol(&region.address(), &foreign, "rack-1", "0.1.0").await.err().unwrap();
    assert!(why(error).contains("it is another region"));
    region.keeper.reason("it enrolled with another region").await;
}

#[tokio::test]
async fn a_bad_host_name_is_refused_before_the_token_is_spent() {
    let region = Region::new();
    let token = region.token(1);
    let error = enrol::enrol(&region.address(), &token, "rack_1", "0.1.0").await.err().unwrap();
    assert!(why(error).contains("rack_1"));
    enrol::enrol(&region.address(), &token, "rack-1", "0.1.0").await.unwrap();
}

#[tokio::test]
async fn an_expired_certificate_is_refused_with_a_reason_on_both_sides() {
    let region = Region::new();
    let ca = region.server.ca();
    let old = identity(ca, ca, 3 * HOUR, HOUR);
    region.keeper.pin(old.fingerprint(), "4y3h7n");
    let mut rack = Rack::start(&region.address(), &old);
    let (why, remedy) = rack.down().await;
    assert!(why.contains("the rack's certificate has expired") && remedy.contains("enrol"), "{why}; {remedy}");
    region.keeper.reason("the rack's certificate has expired").await;
}

#[tokio::test]
async fn a_rack_of_another_region_is_refused_with_a_reason_on_both_sides() {
    let region = Region::new();
    let other = Ca::create(clock::now()).unwrap();
    // It knows its own region's CA: the rack itself turns away.
    let mut rack = Rack::start(&region.address(), &identity(&other, &other, HOUR, 9 * HOUR));
    let (why, _) = rack.down().await;
    assert!(why.contains("it is another region"), "{why}");
    region.keeper.reason("it enrolled with another region").await;
    // It was told this region's CA: the region turns it away.
    let mut rack = Rack::start(&region.address(), &identity(&other, region.server.ca(), HOUR, 9 * HOUR));
    let (why, _) = rack.down().await;
    assert!(why.contains("made by another region's CA"), "{why}");
    region.keeper.reason("made by another region's CA").await;
}

#[tokio::test]
async fn a_revoked_rack_is_disconnected_and_not_let_in_again() {
    let mut region = Region::new();
    let identity = region.enrol().await;
    let mut rack = Rack::start(&region.address(), &identity);
    rack.up().await;
    let _seen = region.next().await;
    region.keeper.pins.lock().unwrap().clear();
    region.server.disconnect(identity.rack, "this rack was revoked by admin");
    let (why, _) = rack.down().await;
    assert!(why.contains("revoked by admin"), "{why}");
    let (why, remedy) = rack.down().await;
    assert_eq!((why.as_str(), remedy.as_str()), ("this rack was revoked", "enrol it again"));
    region.keeper.reason("this rack was revoked").await;
}

#[test]
fn an_identity_survives_its_file_and_a_damaged_one_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::open_or_create(dir.path(), clock::now()).unwrap();
    let again = Ca::open_or_create(dir.path(), clock::now()).unwrap();
    assert_eq!(ca.fingerprint(), again.fingerprint());
    let path = dir.path().join("identity.pem");
    let made = identity(&again, &ca, HOUR, HOUR);
    made.save(&path).unwrap();
    let loaded = RackIdentity::load(&path).unwrap();
    assert_eq!((loaded.rack, loaded.fingerprint()), (made.rack, made.fingerprint()));
    for file in ["identity.pem", "ca.pem"] {
        let mode = std::fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
        std::fs::write(dir.path().join(file), "rack: 4y3h7n\n-----BEGIN").unwrap();
    }
    assert!(RackIdentity::load(&path).err().unwrap().to_string().contains("is damaged"));
    assert!(Ca::open_or_create(dir.path(), clock::now()).err().unwrap().to_string().contains("is damaged"));
}

#[test]
fn tokens_are_text_and_wrong_texts_say_what_is_wrong() {
    let ca = Ca::create(clock::now()).unwrap();
    let token = Token::mint(&ca, [7; 24]);
    assert_eq!(format!(" {}\n", token.text()).parse::<Token>().unwrap(), token);
    assert!(!format!("{token:?}").contains("0707"));
    for (text, part) in
        [("", "no point"), ("07.x", "2 characters"), (&format!("{}.ab", "07".repeat(24)), "2 characters")]
    {
        let error = text.parse::<Token>().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
