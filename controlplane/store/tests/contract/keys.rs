//! Keys: found by hash, revoked once, the first one made once.

use controlplane_core::{access::Mode, ids::OrgId};
use controlplane_store::{
    keys::{KEYS_MAX, Key, KeyPage, Made, Rotation, Whose},
    orgs::{Org, OrgChange, OrgCreated},
};
use time::Duration;

use crate::fixture::{Fixture, NOON, at_once, system};

pub(crate) async fn a_key_is_found_by_its_hash(mut f: Fixture) {
    let key = f.key(Some(OrgId::first()), NOON);
    let audit_id = f.audit_id();
    assert_eq!(f.store.create_key(key.clone(), system(), audit_id).await.unwrap(), Made::Yes);
    assert_eq!(f.store.key_by_hash(&key.secret_sha256).await.unwrap(), Some(key.clone()));
    assert_eq!(f.store.key_by_hash(&[0; 32]).await.unwrap(), None);
    let audit_id = f.audit_id();
    let twin = f.store.create_key(key, system(), audit_id).await;
    assert!(twin.is_err(), "a secret has one key");
    let audit = f.store.audit(10).await.unwrap();
    assert_eq!((audit.len(), audit[0].action.as_str()), (1, "key.create"));
    assert_eq!(f.store.orgs().await.unwrap(), 1, "that of the first migration");
}

pub(crate) async fn a_revoked_key_stays_and_is_revoked_once(mut f: Fixture) {
    let key = f.key(Some(OrgId::first()), NOON);
    let ids = [f.audit_id(), f.audit_id(), f.audit_id()];
    assert_eq!(f.store.create_key(key.clone(), system(), ids[0].clone()).await.unwrap(), Made::Yes);
    let at = NOON + Duration::hours(1);
    assert!(f.store.revoke_key(&Whose::All, &key.id, at, system(), ids[1].clone()).await.unwrap());
    assert!(!f.store.revoke_key(&Whose::All, &key.id, at, system(), ids[2].clone()).await.unwrap());
    let found = f.store.key_by_hash(&key.secret_sha256).await.unwrap().unwrap();
    assert_eq!((found.revoked_at, found.expires_at), (Some(at), key.expires_at));
    let actions: Vec<_> = f.store.audit(10).await.unwrap().into_iter().map(|row| row.action).collect();
    assert_eq!(actions, ["key.revoke", "key.create"]);
}

pub(crate) async fn the_first_operator_is_made_once(mut f: Fixture) {
    let customer = f.key(Some(OrgId::first()), NOON);
    let audit_id = f.audit_id();
    assert_eq!(f.store.create_key(customer, system(), audit_id).await.unwrap(), Made::Yes);
    let first = f.key(None, NOON);
    let audit_id = f.audit_id();
    assert!(f.store.bootstrap_operator(first.clone(), audit_id).await.unwrap(), "a customer's key is none");
    let second = f.key(None, NOON);
    let audit_id = f.audit_id();
    assert!(!f.store.bootstrap_operator(second.clone(), audit_id).await.unwrap());
    assert_eq!(f.store.key_by_hash(&second.secret_sha256).await.unwrap(), None);
    let audit_id = f.audit_id();
    assert!(f.store.revoke_key(&Whose::All, &first.id, NOON, system(), audit_id).await.unwrap());
    let audit_id = f.audit_id();
    assert!(f.store.bootstrap_operator(second, audit_id).await.unwrap(), "nobody is locked out for ever");
}

pub(crate) async fn twenty_bootstraps_are_one(mut f: Fixture) {
    let work = (0..20).map(|_| {
        let (key, audit_id, store) = (f.key(None, NOON), f.audit_id(), f.store.clone());
        async move { store.bootstrap_operator(key, audit_id).await.unwrap() }
    });
    let made = at_once(work.collect()).await;
    assert_eq!(made.into_iter().filter(|made| *made).count(), 1);
    assert_eq!(listed(&f, Whose::Operators).await.len(), 1);
}

pub(crate) async fn keys_are_listed_by_owner_newest_first(mut f: Fixture) {
    let mut made = Vec::new();
    for (s, org) in (0..).zip([None, Some(OrgId::first()), None]) {
        let key = f.key(org, NOON + Duration::seconds(s));
        let audit_id = f.audit_id();
        assert_eq!(f.store.create_key(key.clone(), system(), audit_id).await.unwrap(), Made::Yes);
        made.push(key);
    }
    assert_eq!(listed(&f, Whose::Operators).await, [made[2].clone(), made[0].clone()]);
    assert_eq!(listed(&f, Whose::Org(OrgId::first())).await, [made[1].clone()]);
}

async fn listed(f: &Fixture, whose: Whose) -> Vec<Key> {
    let (keys, has_more) = f.store.keys(KeyPage { whose, limit: 100, starting_after: None }).await.unwrap();
    assert!(!has_more);
    keys
}

/// An organisation with a key, and one without.
async fn two_orgs(f: &mut Fixture) -> [Org; 2] {
    let mut orgs = Vec::new();
    for (s, slug) in (1..).zip(["acme", "beta"]) {
        let at = NOON + Duration::seconds(s);
        let org = Org {
            id: f.org_id(at),
            slug: slug.parse().unwrap(),
            name: format!("{slug} GmbH"),
            created_at: at,
            suspended_at: None,
        };
        let audit_id = f.audit_id();
        assert_eq!(f.store.create_org(org.clone(), system(), audit_id).await.unwrap(), OrgCreated::Yes);
        orgs.push(org);
    }
    orgs.try_into().unwrap()
}

pub(crate) async fn organisations_are_made_listed_renamed_and_suspended(mut f: Fixture) {
    let [acme, beta] = two_orgs(&mut f).await;
    let twin = Org { id: f.org_id(NOON), ..acme.clone() };
    let audit_id = f.audit_id();
    assert_eq!(f.store.create_org(twin, system(), audit_id).await.unwrap(), OrgCreated::SlugTaken);
    let (first, more) = f.store.list_orgs(1, None).await.unwrap();
    assert_eq!((first, more), (vec![beta.clone()], true));
    let (rest, more) = f.store.list_orgs(2, Some(&beta.id)).await.unwrap();
    assert_eq!((rest[0].clone(), rest[1].slug.as_str(), more), (acme.clone(), "default", false));
    let key = f.key(Some(acme.id.clone()), NOON);
    let audit_id = f.audit_id();
    assert_eq!(f.store.create_key(key.clone(), system(), audit_id).await.unwrap(), Made::Yes);
    let mut wishes = Vec::new();
    for (name, suspended) in
        [(None, Some(true)), (None, Some(true)), (Some("Acme"), None), (None, Some(false))]
    {
        let at = NOON + Duration::minutes(wishes.len() as i64);
        let change = OrgChange { name: name.map(str::to_owned), suspended };
        let audit_id = f.audit_id();
        let org = f.store.change_org(&acme.id, change, at, system(), audit_id).await.unwrap().unwrap();
        let found = f.store.key_by_hash(&key.secret_sha256).await.unwrap().unwrap();
        assert_eq!(found.suspended_at, org.suspended_at);
        wishes.push((org.name, org.suspended_at));
    }
    let since = Some(NOON);
    let names = ["acme GmbH", "acme GmbH", "Acme", "Acme"].map(str::to_owned);
    assert_eq!(wishes, names.into_iter().zip([since, since, since, None]).collect::<Vec<_>>());
    let missing = f.org_id(NOON);
    let audit_id = f.audit_id();
    let change = f.store.change_org(&missing, OrgChange::default(), NOON, system(), audit_id).await.unwrap();
    assert_eq!((change, f.store.org(&missing).await.unwrap()), (None, None));
    assert_eq!(f.store.org(&beta.id).await.unwrap(), Some(beta));
    let actions: Vec<_> = f.store.audit(10).await.unwrap().into_iter().map(|row| row.action).collect();
    for (action, times) in
        [("org.create", 2), ("org.suspend", 2), ("org.rename", 1), ("org.resume", 1), ("key.create", 1)]
    {
        assert_eq!(actions.iter().filter(|a| *a == action).count(), times, "{action}");
    }
}

pub(crate) async fn a_rotated_key_lives_on_until_its_time(mut f: Fixture) {
    let [acme, beta] = two_orgs(&mut f).await;
    let old = f.key(Some(acme.id.clone()), NOON);
    let audit_id = f.audit_id();
    assert_eq!(f.store.create_key(old.clone(), system(), audit_id).await.unwrap(), Made::Yes);
    let at = NOON + Duration::hours(1);
    let mut new = f.key(Some(acme.id.clone()), at);
    (new.rotated_from, new.mode) = (Some(old.id.clone()), Mode::Test);
    let rotation = |whose, days| Rotation {
        id: old.id.clone(),
        whose,
        until: at + Duration::days(days),
        new: new.clone(),
    };
    let ids = [f.audit_id(), f.audit_id()];
    let foreign = rotation(Whose::Org(beta.id), 1);
    assert_eq!(f.store.rotate_key(foreign, system(), ids[0].clone()).await.unwrap(), Made::NotFound);
    let own = rotation(Whose::Org(acme.id.clone()), 1);
    assert_eq!(f.store.rotate_key(own, system(), ids[1].clone()).await.unwrap(), Made::Yes);
    assert_eq!(f.store.key(&Whose::All, &new.id).await.unwrap(), Some(new.clone()));
    let until = f.store.key_by_hash(&old.secret_sha256).await.unwrap().unwrap().expires_at;
    assert_eq!(until, Some(at + Duration::days(1)));
    // A longer overlap does not lengthen a life, and a revoked key has no successor.
    let mut third = f.key(Some(acme.id.clone()), at);
    third.rotated_from = Some(old.id.clone());
    let long = Rotation { new: third.clone(), ..rotation(Whose::All, 5) };
    let ids = [f.audit_id(), f.audit_id(), f.audit_id()];
    assert_eq!(f.store.rotate_key(long.clone(), system(), ids[0].clone()).await.unwrap(), Made::Yes);
    assert_eq!(f.store.key_by_hash(&old.secret_sha256).await.unwrap().unwrap().expires_at, until);
    assert!(f.store.revoke_key(&Whose::All, &third.id, at, system(), ids[1].clone()).await.unwrap());
    let dead = Rotation { id: third.id, ..long };
    assert_eq!(f.store.rotate_key(dead, system(), ids[2].clone()).await.unwrap(), Made::NotFound);
    let row = &f.store.audit(10).await.unwrap();
    assert_eq!(row.iter().filter(|row| row.action == "key.rotate").count(), 2);
}

pub(crate) async fn a_key_is_nobody_elses(mut f: Fixture) {
    let [acme, beta] = two_orgs(&mut f).await;
    let key = f.key(Some(acme.id.clone()), NOON);
    let ids = [f.audit_id(), f.audit_id(), f.audit_id()];
    assert_eq!(f.store.create_key(key.clone(), system(), ids[0].clone()).await.unwrap(), Made::Yes);
    for whose in [Whose::Org(beta.id), Whose::Operators] {
        assert_eq!(f.store.key(&whose, &key.id).await.unwrap(), None);
        assert!(!f.store.revoke_key(&whose, &key.id, NOON, system(), ids[1].clone()).await.unwrap());
        assert_eq!(listed(&f, whose).await, []);
    }
    let own = Whose::Org(acme.id);
    assert_eq!(f.store.key(&own, &key.id).await.unwrap(), Some(key.clone()));
    assert!(f.store.revoke_key(&own, &key.id, NOON, system(), ids[2].clone()).await.unwrap());
}

pub(crate) async fn uses_are_noted_and_never_go_back(mut f: Fixture) {
    let key = f.key(Some(OrgId::first()), NOON);
    let audit_id = f.audit_id();
    assert_eq!(f.store.create_key(key.clone(), system(), audit_id).await.unwrap(), Made::Yes);
    let (earlier, later) = (NOON + Duration::minutes(1), NOON + Duration::minutes(2));
    for (at, noted) in [(later, later), (earlier, later)] {
        f.store.note_uses(vec![(key.id.clone(), at)]).await.unwrap();
        let found = f.store.key_by_hash(&key.secret_sha256).await.unwrap().unwrap();
        assert_eq!(found.last_used_at, Some(noted));
    }
}

pub(crate) async fn an_organisation_has_no_more_keys_than_it_may(mut f: Fixture) {
    let mut last = None;
    for n in 0..=KEYS_MAX {
        let key = f.key(Some(OrgId::first()), NOON);
        let audit_id = f.audit_id();
        let made = f.store.create_key(key.clone(), system(), audit_id).await.unwrap();
        assert_eq!(made, if n < KEYS_MAX { Made::Yes } else { Made::Full });
        last = (made == Made::Yes).then_some(key).or(last);
    }
    let ids = [f.audit_id(), f.audit_id(), f.audit_id()];
    let operators = f.key(None, NOON);
    assert_eq!(f.store.create_key(operators, system(), ids[0].clone()).await.unwrap(), Made::Yes);
    // A revoked one gives its place away.
    assert!(
        f.store.revoke_key(&Whose::All, &last.unwrap().id, NOON, system(), ids[1].clone()).await.unwrap()
    );
    let key = f.key(Some(OrgId::first()), NOON);
    assert_eq!(f.store.create_key(key, system(), ids[2].clone()).await.unwrap(), Made::Yes);
}
