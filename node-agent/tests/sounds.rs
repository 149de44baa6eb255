//! Sounds that a control plane asks the agent to place: from one that is honest, one that lies, onto a disk that is
//! full or in the way.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and skips what it does not look at"
)]

use std::path::{Path, PathBuf};

use controlplane_core::sound::SoundHash;
use fake_pbx::{FakePbx, Script};
use node_agent::{
    app::App,
    clock::{Chance, Clock},
    identity::StateDir,
    joining,
    settings::Settings,
};
use node_agent_protocol::{Down, Up, audio_path};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

mod control_plane;
use control_plane::{ControlPlane, Link, settings};

const T0: i64 = 1_790_000_000;

struct Bench {
    plane: ControlPlane,
    link: Link,
    folder: PathBuf,
    _pbx: FakePbx,
    _dir: tempfile::TempDir,
    _app: App,
}

async fn bench(change: impl FnOnce(&mut Settings)) -> Bench {
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    let mut plane = ControlPlane::start(T0).await;
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path(), pbx.address());
    change(&mut settings);
    let folder = settings.audio.folder.clone();
    joining::join(&plane.token(), &StateDir::open(&settings.state_dir).unwrap()).await.unwrap();
    let clock = Clock::of(|| OffsetDateTime::from_unix_timestamp(T0).unwrap());
    let app = App::start(settings, clock, Chance::seeded(1)).await.unwrap();
    let link = plane.link().await;
    Bench { plane, link, folder, _pbx: pbx, _dir: dir, _app: app }
}

fn sound(byte: u8, bytes: usize) -> (SoundHash, Vec<u8>) {
    let wav = vec![byte; bytes];
    (SoundHash::new(Sha256::digest(&wav).into()), wav)
}

impl Bench {
    fn serves(&self, sound: &SoundHash, bytes: &[u8]) {
        self.plane.asked.lock().unwrap().sounds.insert(audio_path(sound), bytes.to_vec());
    }

    fn fetched(&self) -> usize {
        self.plane.asked.lock().unwrap().fetched.len()
    }

    /// Asks, and gives why not.
    async fn place(&mut self, sound: SoundHash) -> Option<String> {
        self.link.send(&Down::PlaceAudio { sound, ahead: false }).await;
        self.placed(sound).await
    }

    async fn placed(&mut self, asked: SoundHash) -> Option<String> {
        self.link
            .until(|up| match up {
                Up::AudioPlaced { sound, error, .. } if sound == asked => {
                    Some(error.map(|text| text.to_string()))
                }
                _ => None,
            })
            .await
    }

    fn file(&self, sound: &SoundHash) -> PathBuf {
        self.folder.join(format!("{sound}.wav"))
    }
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

#[tokio::test]
async fn a_sound_is_fetched_once_and_found_again_and_mended_when_it_was_cut() {
    let mut bench = bench(|_| ()).await;
    let (hash, wav) = sound(1, 100_000);
    bench.serves(&hash, &wav);
    // Ten calls ask at once.
    for _ in 0..10 {
        bench.link.send(&Down::PlaceAudio { sound: hash, ahead: false }).await;
    }
    for _ in 0..10 {
        assert_eq!(bench.placed(hash).await, None);
    }
    assert_eq!((std::fs::read(bench.file(&hash)).unwrap(), bench.fetched()), (wav.clone(), 1));
    std::fs::write(bench.file(&hash), &wav[..50_000]).unwrap();
    assert_eq!(bench.place(hash).await, None);
    assert_eq!((std::fs::read(bench.file(&hash)).unwrap(), bench.fetched()), (wav, 2));
}

#[tokio::test]
async fn a_control_plane_that_sends_something_else_or_nothing_places_nothing() {
    let mut bench = bench(|_| ()).await;
    let (hash, wav) = sound(1, 10_000);
    let mut other = wav.clone();
    other[5_000] ^= 1;
    let large = vec![1; node_agent_protocol::sounds::SOUND_MAX + 1];
    for (lie, said) in
        [(other, "hash"), (wav[..9_999].to_vec(), "hash"), (Vec::new(), "hash"), (large, "length limit")]
    {
        bench.serves(&hash, &lie);
        let error = bench.place(hash).await.unwrap();
        assert!(error.contains(said), "{error}");
        assert_eq!(files(&bench.folder), 0);
    }
    let (unknown, _) = sound(2, 10);
    let error = bench.place(unknown).await.unwrap();
    assert!(error.contains("not_found"), "{error}");
    // The link lives on, and the truth is taken.
    bench.serves(&hash, &wav);
    assert_eq!(bench.place(hash).await, None);
}

#[tokio::test]
async fn a_folder_without_room_or_in_the_way_is_told_and_the_rest_goes_on() {
    let mut full = bench(|settings| settings.audio.bytes_max = 25_000).await;
    let all: Vec<_> = (1..=3).map(|byte| sound(byte, 10_000)).collect();
    for (hash, wav) in &all {
        full.serves(hash, wav);
    }
    assert_eq!(full.place(all[0].0).await, None);
    assert_eq!(full.place(all[1].0).await, None);
    // Both may be playing.
    let error = full.place(all[2].0).await.unwrap();
    assert!(error.contains("25000 bytes"), "{error}");
    assert_eq!(files(&full.folder), 2);
    // One that was asked for long ago makes room.
    let long_ago =
        std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(T0).unwrap() - 10_000);
    std::fs::File::options().write(true).open(full.file(&all[0].0)).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(full.place(all[2].0).await, None);
    assert!(!full.file(&all[0].0).exists() && full.file(&all[1].0).exists());

    let mut in_the_way = bench(|settings| {
        std::fs::write(&settings.audio.folder, "a file").unwrap();
    })
    .await;
    in_the_way.serves(&all[0].0, &all[0].1);
    let error = in_the_way.place(all[0].0).await.unwrap();
    assert!(error.contains("sounds"), "{error}");
}
