//! Honest files of every kind that is taken, and files that lie.

use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};

use super::*;

/// One second of a 440 Hz tone, as samples of -1 to 1.
fn tone(rate: u32) -> Vec<f32> {
    (0..rate).map(|n| (n as f32 * 440.0 * std::f32::consts::TAU / rate as f32).sin() * 0.5).collect()
}

fn wav(rate: u32, channels: u16, bits: u16, samples: &[f32]) -> Vec<u8> {
    let sample_format = if bits == 32 { hound::SampleFormat::Float } else { hound::SampleFormat::Int };
    let spec = hound::WavSpec { channels, sample_rate: rate, bits_per_sample: bits, sample_format };
    let mut out = Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut out, spec).unwrap();
    for sample in samples {
        for _ in 0..channels {
            if bits == 32 {
                writer.write_sample(*sample).unwrap();
            } else {
                let full = f64::from(1_u32 << (bits - 1)) - 1.0;
                writer.write_sample((f64::from(*sample) * full) as i32).unwrap();
            }
        }
    }
    writer.finalize().unwrap();
    out.into_inner()
}

/// As a WAV of this format tag, one byte a sample.
fn companded(tag: u16, data: &[u8]) -> Vec<u8> {
    WavFormat { tag, channels: 1, rate: 8_000, bits: 8 }.wav(data)
}

fn samples(converted: &Converted) -> Vec<i16> {
    let mut reader = hound::WavReader::new(Cursor::new(&*converted.sound.wav)).unwrap();
    let spec = reader.spec();
    assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (1, 8_000, 16));
    reader.samples::<i16>().map(Result::unwrap).collect()
}

/// How much of the sound's energy is at this frequency, 0 to 1 (Goertzel).
fn share(samples: &[i16], frequency: f64) -> f64 {
    let step = frequency * std::f64::consts::TAU / 8_000.0;
    let (mut re, mut im, mut all) = (0.0, 0.0, 0.0);
    for (n, sample) in samples.iter().enumerate() {
        let (value, angle) = (f64::from(*sample), step * n as f64);
        re += value * angle.cos();
        im += value * angle.sin();
        all += value * value;
    }
    2.0 * (re * re + im * im) / (all * samples.len() as f64)
}

#[test]
fn every_rate_depth_and_number_of_channels_becomes_the_same_tone() {
    for (rate, channels, bits) in [
        (8_000, 1, 16),
        (8_000, 2, 16),
        (11_025, 1, 8),
        (16_000, 1, 16),
        (22_050, 1, 16),
        (44_100, 2, 24),
        (48_000, 2, 32),
        (192_000, 1, 16),
    ] {
        let converted = convert(&wav(rate, channels, bits, &tone(rate)), 300).unwrap();
        let samples = samples(&converted);
        assert!((7_990..=8_000).contains(&samples.len()), "{rate}: {}", samples.len());
        assert!((990..=1_000).contains(&converted.sound.length_ms));
        let middle = &samples[400..7_600];
        let (tone, other) = (share(middle, 440.0), share(middle, 1_320.0));
        assert!(tone > 0.98 && other < 0.01, "{rate} {channels} {bits}: {tone} {other}");
        assert!((15_000..=17_500).contains(&converted.peak), "{rate}: {}", converted.peak);
        // Its name is its content's.
        assert_eq!(
            *converted.sound.sha256.as_bytes(),
            <[u8; 32]>::from(Sha256::digest(&converted.sound.wav))
        );
    }
}

#[test]
fn a_tone_above_what_a_telephone_carries_is_not_folded_into_it() {
    let high: Vec<f32> =
        (0..48_000).map(|n| (n as f32 * 6_000.0 * std::f32::consts::TAU / 48_000.0).sin() * 0.5).collect();
    let converted = convert(&wav(48_000, 1, 16, &high), 300).unwrap();
    let quiet = samples(&converted)[400..7_600].iter().map(|s| s.unsigned_abs()).max().unwrap();
    assert!(quiet < 330, "6 kHz of half strength became {quiet} of 32767");
}

#[test]
fn what_telephones_write_is_read_too() {
    // µ-law and A-law silence and full strength.
    for (tag, loud, silent) in [(7, 0x80, 0xff), (6, 0xaa, 0xd5)] {
        let data: Vec<u8> = [loud, silent].repeat(2_000);
        let converted = convert(&companded(tag, &data), 300).unwrap();
        assert_eq!(converted.sound.length_ms, 500);
        assert!(converted.peak > 30_000, "{}", converted.peak);
    }
}

#[test]
fn an_mp3_is_read_behind_its_tag() {
    let mp3 = include_bytes!("tone.mp3");
    for file in [mp3.to_vec(), [b"ID3\x03\x00\x00\x00\x00\x01\x00".as_slice(), &[0; 128], mp3].concat()] {
        assert_eq!(format_of(&file), Some(Format::Mp3));
        let converted = convert(&file, 300).unwrap();
        let samples = samples(&converted);
        assert!((7_900..=9_300).contains(&samples.len()), "{}", samples.len());
        let tone = share(&samples[1_600..7_200], 440.0);
        assert!(tone > 0.95, "{tone}");
        assert_eq!(convert(&file, 0), Err(InvalidAudio::TooLong(0)));
    }
}

#[test]
fn sizes_that_are_claimed_are_not_believed() {
    let honest = wav(8_000, 1, 16, &tone(8_000));
    let data_size = 40..44;
    for claim in [0_u32, 1_000_000, u32::MAX] {
        let mut lying = honest.clone();
        lying[data_size.clone()].copy_from_slice(&claim.to_le_bytes());
        assert_eq!(convert(&lying, 300).unwrap().sound.length_ms, 1_000, "{claim}");
    }
    // A chunk of 4 GiB before the data, a list of tags with lengths beyond the file.
    for chunk in [b"LIST".as_slice(), b"JUNK", b"fact"] {
        let mut lying = honest[..12].to_vec();
        lying.extend(chunk);
        lying.extend(u32::MAX.to_le_bytes());
        lying.extend(&honest[12..]);
        assert!(convert(&lying, 300).is_err());
    }
    // A tag larger than the file.
    assert_eq!(convert(b"ID3\x03\x00\x00\x7f\x7f\x7f\x7f\xff\xfb", 300), Err(InvalidAudio::Neither));
    for rate in [0_u32, 1, 3_999, 192_001, u32::MAX] {
        let mut lying = honest.clone();
        lying[24..28].copy_from_slice(&rate.to_le_bytes());
        assert!(convert(&lying, 300).is_err(), "{rate}");
    }
    for channels in [0_u16, 9, 255, u16::MAX] {
        let mut lying = honest.clone();
        lying[22..24].copy_from_slice(&channels.to_le_bytes());
        assert!(convert(&lying, 300).is_err(), "{channels}");
    }
}

#[test]
fn too_long_too_short_and_what_is_no_audio_are_told_apart() {
    let minute = wav(8_000, 1, 16, &tone(8_000).repeat(3));
    assert_eq!(convert(&minute, 2), Err(InvalidAudio::TooLong(2)));
    assert!(convert(&minute, 3).is_ok());
    assert_eq!(convert(&wav(8_000, 1, 16, &tone(8_000)[..399]), 300), Err(InvalidAudio::TooShort));
    for file in [b"".as_slice(), b"RIFF", b"<html>", b"OggS\0\0\0\0\0\0", b"\xff\xf1aac"] {
        assert_eq!(convert(file, 300), Err(InvalidAudio::Neither));
    }
}

/// Cut anywhere, with bits turned anywhere, or noise behind an honest beginning: an answer comes, and soon.
#[test]
fn whatever_is_wrong_with_a_file_there_is_an_answer() {
    let seed = 20_261_124;
    let rng = &mut StdRng::seed_from_u64(seed);
    let seeds: [&[u8]; 3] = [
        &wav(22_050, 2, 16, &tone(22_050)[..4_000]),
        &wav(48_000, 1, 32, &tone(48_000)[..4_000]),
        include_bytes!("tone.mp3"),
    ];
    let (mut taken, mut refused) = (0, 0);
    for round in 0..600 {
        let mut file = seeds[round % seeds.len()].to_vec();
        match rng.random_range(0..3) {
            0 => file.truncate(rng.random_range(0..file.len())),
            1 => {
                for _ in 0..rng.random_range(1..40) {
                    // Mostly where headers are.
                    let end = if rng.random_bool(0.7) { 64.min(file.len()) } else { file.len() };
                    let at = rng.random_range(0..end);
                    file[at] ^= 1 << rng.random_range(0..8);
                }
            }
            _ => {
                let from = rng.random_range(4..file.len());
                rng.fill_bytes(&mut file[from..]);
            }
        }
        let converted = std::panic::catch_unwind(|| convert(&file, 5));
        match converted.unwrap_or_else(|_| panic!("seed {seed}, round {round} panicked")) {
            Ok(converted) => {
                assert!(converted.sound.length_ms <= 5_000);
                taken += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(taken > 20 && refused > 20, "{taken} taken, {refused} refused");
}
