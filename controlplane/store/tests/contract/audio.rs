//! Sounds: kept once each, shared by recordings and texts, gone when nothing refers to them.

use controlplane_core::{
    ids::{OrgId, RecordingId},
    request::{AudioId, Content},
    sound::SoundHash,
};
use controlplane_store::audio::{
    KeptSpeech, NewRecording, NewSpeech, PruneAudio, Recorded, Recording, RecordingsPage, Sound,
};
use controlplane_store::calls::{Created, Written};
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
        bytes_max: 2_000,
        actor: system(),
        audit_id: f.audit_id(),
    }
}

async fn create(f: &mut Fixture, sound: Sound, at: OffsetDateTime) -> Recording {
    let new = new(f, sound, at);
    let Recorded::Done(recording) = f.store.create_recording(new).await.unwrap() else { panic!("full") };
    recording
}

/// A text with room enough.
fn text(key: u8, sound: Sound, at: OffsetDateTime) -> NewSpeech {
    let (org, key) = (OrgId::first(), [key; 32]);
    NewSpeech { key, org, sound, at, stays_since: at, org_bytes_max: 10_000, bytes_max: 10_000 }
}

async fn delete(f: &mut Fixture, id: &RecordingId, at: OffsetDateTime) {
    let audit_id = f.audit_id();
    assert!(f.store.delete_recording(&OrgId::first(), id, at, system(), audit_id).await.unwrap());
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
    // What is deleted counts until it is erased; another organisation's never did.
    delete(&mut f, &first.id, NOON).await;
    let large = new(&mut f, sound(2, 401), NOON);
    assert_eq!(f.store.create_recording(large).await.unwrap(), Recorded::Full);
    let past = NOON + Duration::seconds(1);
    f.store.prune_audio(PruneAudio { deleted_before: past, ..NOTHING_OLD }).await.unwrap();
    let org = f.other_org().await;
    let theirs = NewRecording { org: org.clone(), ..new(&mut f, sound(3, 900), NOON) };
    assert!(matches!(f.store.create_recording(theirs).await.unwrap(), Recorded::Done(_)));
    create(&mut f, sound(2, 401), NOON).await;
    let work = (0..20).map(|n| {
        let (new, store) = (new(&mut f, sound(10 + n, 250), NOON), f.store.clone());
        async move { store.create_recording(new).await.unwrap() }
    });
    let answers = at_once(work.collect()).await;
    assert_eq!(answers.iter().filter(|answer| **answer != Recorded::Full).count(), 2);
    // All organisations together have theirs: 900 and 901 of it are taken.
    let more = NewRecording { org, bytes_max: 1_850, ..new(&mut f, sound(4, 50), NOON) };
    assert_eq!(f.store.create_recording(more).await.unwrap(), Recorded::AllFull);
}

pub(crate) async fn a_loop_of_uploads_and_deletions_holds_no_more_than_the_quota(mut f: Fixture) {
    for n in 0..20 {
        let upload = new(&mut f, sound(n, 300), NOON);
        if let Recorded::Done(recording) = f.store.create_recording(upload).await.unwrap() {
            delete(&mut f, &recording.id, NOON).await;
        }
    }
    assert_eq!(f.count("SELECT CAST(sum(bytes) AS bigint) FROM audio").await, 900);
}

pub(crate) async fn a_deleted_recording_stays_for_as_long_as_an_open_call_plays_it(mut f: Fixture) {
    let recording = create(&mut f, sound(1, 300), NOON).await;
    let mut call = f.new_call(NOON);
    call.request.message.content = Content::Audio(AudioId::Recording(recording.id.clone()));
    let created = f.store.create_call(call).await.unwrap();
    let Created::New(call) = created else { panic!("{created:?}") };
    delete(&mut f, &recording.id, NOON).await;
    let prune = PruneAudio { deleted_before: NOON + Duration::days(9), ..NOTHING_OLD };
    assert_eq!(f.store.prune_audio(prune).await.unwrap(), 0);
    assert!(f.store.recording(&OrgId::first(), &recording.id).await.unwrap().is_some());
    let end = f.end_call(&call.id, NOON);
    assert!(matches!(f.store.end_call(end).await.unwrap(), Written::Yes { .. }));
    assert_eq!(f.store.prune_audio(prune).await.unwrap(), 1);
    assert_eq!(f.store.recording(&OrgId::first(), &recording.id).await.unwrap(), None);
}

pub(crate) async fn texts_take_no_more_than_they_may_of_one_organisation_and_of_all(mut f: Fixture) {
    let other = f.other_org().await;
    let at = |minute: i64| NOON + Duration::minutes(minute);
    let keep = |n: u8, org: &OrgId, minute: i64, stays: i64| {
        let bounds = NewSpeech { org_bytes_max: 300, bytes_max: 500, ..text(n, sound(n, 100), at(minute)) };
        f.store.keep_speech(NewSpeech { org: org.clone(), stays_since: at(stays), ..bounds })
    };
    let ours = OrgId::first();
    for n in 1..=3 {
        assert!(matches!(keep(n, &ours, n.into(), 0).await.unwrap(), KeptSpeech::Sound(_)));
    }
    // Open calls need all three.
    assert_eq!(keep(4, &ours, 4, 1).await.unwrap(), KeptSpeech::Full);
    // One is needed no more, and goes.
    assert!(matches!(keep(4, &ours, 4, 2).await.unwrap(), KeptSpeech::Sound(_)));
    assert_eq!(f.store.speech(&[1; 32]).await.unwrap(), None);
    // Another organisation is not its neighbour's victim, until all have taken all.
    for n in 5..=6 {
        assert!(matches!(keep(n, &other, 5, 2).await.unwrap(), KeptSpeech::Sound(_)));
    }
    assert_eq!(keep(7, &other, 5, 2).await.unwrap(), KeptSpeech::AllFull);
    assert!(matches!(keep(7, &other, 5, 3).await.unwrap(), KeptSpeech::Sound(_)));
    assert_eq!((f.store.speech(&[2; 32]).await.unwrap(), sounds(&f).await), (None, 5));
    // One that is there needs no room.
    assert_eq!(keep(7, &ours, 6, 0).await.unwrap(), KeptSpeech::Sound(sound(7, 1).sha256));
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
    for sound in [first.clone(), second] {
        let kept = f.store.keep_speech(text(5, sound, NOON)).await.unwrap();
        assert_eq!(kept, KeptSpeech::Sound(first.sha256));
    }
    let recording = create(&mut f, first.clone(), NOON).await;
    assert_eq!(recording.sha256, first.sha256);
    // The second's sound is not there.
    assert_eq!((sounds(&f).await, f.store.prune_audio(NOTHING_OLD).await.unwrap()), (1, 0));
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
        f.store.keep_speech(text(n, sound(n, 100), at)).await.unwrap();
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
