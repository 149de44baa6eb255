//! Sounds: kept once each, shared by recordings and texts, gone when nothing refers to them.

use controlplane_core::{
    ids::{OrgId, RecordingId},
    sound::SoundHash,
};
use controlplane_store::audio::{NewRecording, PruneAudio, Recorded, Recording, RecordingsPage, Sound};
use time::{Duration, OffsetDateTime};

use crate::fixture::{Fixture, NOON, at_once, system};

fn sound(byte: u8, bytes: usize) -> Sound {
    Sound { sha256: SoundHash::new([byte; 32]), wav: vec![byte; bytes].into(), length_ms: 1_500 }
}

fn new(f: &mut Fixture, sound: Sound, at: OffsetDateTime) -> NewRecording {
    NewRecording {
        id: RecordingId::new(at, &mut f.rng),
        org: OrgId::first(),
        sound,
        at,
        org_bytes_max: 1_000,
        actor: system(),
        audit_id: f.audit_id(),
    }
}

async fn create(f: &mut Fixture, sound: Sound, at: OffsetDateTime) -> Recording {
    let new = new(f, sound, at);
    let Recorded::Done(recording) = f.store.create_recording(new).await.unwrap() else { panic!("full") };
    recording
}

async fn sounds(f: &Fixture) -> i64 {
    f.count("SELECT count(*) FROM audio").await
}

const NOTHING_OLD: PruneAudio = PruneAudio {
    speech_before: NOON,
    speech_bytes_max: u64::MAX,
    speech_stays_since: NOON,
    deleted_before: NOON,
};

pub(crate) async fn a_recording_is_read_back_until_it_is_deleted_and_pruned(mut f: Fixture) {
    let org = OrgId::first();
    let recording = create(&mut f, sound(1, 300), NOON).await;
    assert_eq!((recording.bytes, recording.length_ms, recording.deleted_at), (300, 1_500, None));
    assert_eq!(f.store.recording(&org, &recording.id).await.unwrap(), Some(recording.clone()));
    assert_eq!(f.store.sound(&recording.sha256).await.unwrap(), Some(sound(1, 300)));
    assert_eq!(f.store.sound(&SoundHash::new([9; 32])).await.unwrap(), None);
    let other = f.other_org().await;
    assert_eq!(f.store.recording(&other, &recording.id).await.unwrap(), None);
    let later = NOON + Duration::hours(1);
    for (org, deleted) in [(&other, false), (&org, true), (&org, false)] {
        let audit_id = f.audit_id();
        let answer = f.store.delete_recording(org, &recording.id, later, system(), audit_id).await.unwrap();
        assert_eq!(answer, deleted);
    }
    // Listed no more, and there for the calls that were accepted before.
    assert_eq!(
        f.store.recordings(&org, RecordingsPage { limit: 5, ..RecordingsPage::default() }).await.unwrap().0,
        []
    );
    let left = f.store.recording(&org, &recording.id).await.unwrap().unwrap();
    assert_eq!(left.deleted_at, Some(later));
    assert_eq!(f.store.prune_audio(PruneAudio { deleted_before: later, ..NOTHING_OLD }).await.unwrap(), 0);
    let past = later + Duration::seconds(1);
    assert_eq!(f.store.prune_audio(PruneAudio { deleted_before: past, ..NOTHING_OLD }).await.unwrap(), 1);
    assert_eq!(f.store.recording(&org, &recording.id).await.unwrap(), None);
    assert_eq!(sounds(&f).await, 0);
    let actions: Vec<_> = f.store.audit(9).await.unwrap().into_iter().map(|row| row.action).collect();
    assert_eq!(actions, ["audio.delete", "audio.create"]);
}

pub(crate) async fn an_organisation_has_room_for_so_much(mut f: Fixture) {
    let first = create(&mut f, sound(1, 600), NOON).await;
    let large = new(&mut f, sound(2, 401), NOON);
    assert_eq!(f.store.create_recording(large).await.unwrap(), Recorded::Full);
    assert_eq!((sounds(&f).await, f.count("SELECT count(*) FROM audit_log").await), (1, 1));
    // What is deleted counts no more; another organisation's never did.
    let audit_id = f.audit_id();
    f.store.delete_recording(&OrgId::first(), &first.id, NOON, system(), audit_id).await.unwrap();
    let org = f.other_org().await;
    let theirs = NewRecording { org, ..new(&mut f, sound(3, 900), NOON) };
    assert!(matches!(f.store.create_recording(theirs).await.unwrap(), Recorded::Done(_)));
    create(&mut f, sound(2, 401), NOON).await;
    let work = (0..20).map(|n| {
        let (new, store) = (new(&mut f, sound(10 + n, 250), NOON), f.store.clone());
        async move { store.create_recording(new).await.unwrap() }
    });
    let answers = at_once(work.collect()).await;
    assert_eq!(answers.iter().filter(|answer| **answer != Recorded::Full).count(), 2);
}

pub(crate) async fn recordings_are_listed_newest_first_in_pages(mut f: Fixture) {
    let org = OrgId::first();
    let mut all = Vec::new();
    for n in 0..5 {
        all.insert(0, create(&mut f, sound(n, 10), NOON + Duration::seconds(n.into())).await);
    }
    let page = |after: Option<usize>, before: Option<usize>| RecordingsPage {
        limit: 2,
        starting_after: after.map(|n| all[n].id.clone()),
        ending_before: before.map(|n| all[n].id.clone()),
    };
    for (asked, range, has_more) in [
        (page(None, None), 0..2, true),
        (page(Some(1), None), 2..4, true),
        (page(Some(3), None), 4..5, false),
        (page(None, Some(3)), 1..3, true),
        (page(None, Some(1)), 0..1, false),
    ] {
        let answer = f.store.recordings(&org, asked.clone()).await.unwrap();
        assert_eq!(answer, (all[range].to_vec(), has_more), "{asked:?}");
    }
}

pub(crate) async fn a_text_is_spoken_once_and_shares_its_sound(mut f: Fixture) {
    let key = [5; 32];
    assert_eq!(f.store.speech(&key).await.unwrap(), None);
    // Of two that spoke it at once, the first counts.
    let (first, second) = (sound(1, 100), sound(2, 100));
    assert_eq!(f.store.keep_speech(key, first.clone(), NOON).await.unwrap(), first.sha256);
    assert_eq!(f.store.keep_speech(key, second, NOON).await.unwrap(), first.sha256);
    let recording = create(&mut f, first.clone(), NOON).await;
    assert_eq!(recording.sha256, first.sha256);
    // The second's sound belongs to nothing.
    assert_eq!(f.store.prune_audio(NOTHING_OLD).await.unwrap(), 1);
    let later = NOON + Duration::hours(2);
    f.store.use_speech(key, later).await.unwrap();
    f.store.use_speech(key, NOON).await.unwrap();
    assert_eq!(f.store.speech(&key).await.unwrap().unwrap().last_used_at, later);
    let old = PruneAudio { speech_before: later + Duration::seconds(1), ..NOTHING_OLD };
    // The text goes, its sound stays with the recording.
    assert_eq!(f.store.prune_audio(old).await.unwrap(), 0);
    assert_eq!(f.store.speech(&key).await.unwrap(), None);
    assert_eq!(f.store.sound(&first.sha256).await.unwrap(), Some(first));
}

pub(crate) async fn texts_used_longest_ago_go_first_where_there_are_too_many_bytes(f: Fixture) {
    for n in 1..=4 {
        let at = NOON + Duration::minutes(n.into());
        f.store.keep_speech([n; 32], sound(n, 100), at).await.unwrap();
    }
    f.store.use_speech([1; 32], NOON + Duration::hours(1)).await.unwrap();
    let prune = PruneAudio { speech_bytes_max: 250, ..NOTHING_OLD };
    // An open call may need them all.
    assert_eq!(f.store.prune_audio(prune).await.unwrap(), 0);
    let prune = PruneAudio { speech_stays_since: NOON + Duration::hours(1), ..prune };
    assert_eq!(f.store.prune_audio(prune).await.unwrap(), 2);
    for (n, is_left) in [(1, true), (2, false), (3, false), (4, true)] {
        assert_eq!(f.store.speech(&[n; 32]).await.unwrap().is_some(), is_left, "{n}");
        assert_eq!(f.store.sound(&SoundHash::new([n; 32])).await.unwrap().is_some(), is_left, "{n}");
    }
}
