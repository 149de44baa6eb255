//! Any WAV or MP3 to what every Asterisk plays without transcoding first: a WAV of 8 kHz, mono, 16 bits.
//!
//! Files come from strangers. Of a WAV only what `fmt ` says and `data` are looked at, of an MP3 only its frames: tags are
//! skipped unread. No size that a file claims is believed beyond the bytes that are there, and decoding stops
//! at the longest length that is allowed, so that its time and memory are bounded by that and by the upload.

use std::io::Cursor;

use controlplane_core::sound::SoundHash;
use controlplane_store::audio::Sound;
use rubato::{Resampler, SincFixedIn, SincInterpolationParameters, SincInterpolationType, WindowFunction};
use sha2::{Digest, Sha256};
use symphonia::{
    core::{
        audio::SampleBuffer,
        codecs::{CODEC_TYPE_NULL, DecoderOptions},
        errors::Error,
        formats::{FormatOptions, FormatReader},
        io::MediaSourceStream,
    },
    default::formats::{MpaReader, WavReader},
};

/// What comes out, in Hz.
const RATE: u32 = 8_000;
/// Rates that are taken, in Hz.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=192_000;
/// Most channels that are mixed down.
const CHANNELS_MAX: usize = 8;
/// Frames that the resampler takes at once.
const CHUNK: usize = 1_024;
/// Broken frames of an MP3 that are passed over before it is taken for no MP3.
const BROKEN_MAX: u32 = 20;
/// Format tags of a WAV (RFC 2361).
const PCM: u16 = 1;
const FLOAT: u16 = 3;
const A_LAW: u16 = 6;
const MU_LAW: u16 = 7;
/// The tag stands behind the rest then.
const EXTENSIBLE: u16 = 0xfffe;
/// Shortest sound, in samples of [`RATE`]: 50 ms.
const SAMPLES_MIN: usize = 400;

/// The two formats that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// RIFF WAVE: PCM, float, A-law or µ-law.
    Wav,
    /// MPEG audio layer III.
    Mp3,
}

/// Why there is no sound in a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidAudio {
    #[error("the file is neither a WAV nor an MP3")]
    Neither,
    #[error("the file cannot be decoded: {0}")]
    Broken(String),
    #[error("the file is of a kind that is not taken: {0}")]
    Unsupported(String),
    #[error("longer than {0} s")]
    TooLong(u32),
    #[error("shorter than 50 ms")]
    TooShort,
}

/// A sound, and how loud its loudest sample is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Converted {
    pub(crate) sound: Sound,
    /// Of 32,767.
    pub(crate) peak: u16,
}

/// What the bytes are, by themselves.
pub(crate) fn format_of(file: &[u8]) -> Option<Format> {
    if file.starts_with(b"RIFF") && file.get(8..12) == Some(b"WAVE") {
        return Some(Format::Wav);
    }
    let frames = after_id3(file);
    let is_frame = frames.first() == Some(&0xff) && frames.get(1).is_some_and(|b| b & 0xe6 == 0xe2);
    is_frame.then_some(Format::Mp3)
}

/// Converts a file. Takes long for a long one: not for a thread that serves others.
///
/// # Errors
/// [`InvalidAudio`], each for whoever made the file.
pub(crate) fn convert(file: &[u8], length_max_s: u32) -> Result<Converted, InvalidAudio> {
    let reader: Box<dyn FormatReader> = match format_of(file).ok_or(InvalidAudio::Neither)? {
        Format::Wav => {
            Box::new(WavReader::try_new(source(bare_wav(file)?), &FormatOptions::default()).map_err(broken)?)
        }
        Format::Mp3 => Box::new(
            MpaReader::try_new(source(after_id3(file).to_vec()), &FormatOptions::default())
                .map_err(broken)?,
        ),
    };
    let samples = decode(reader, length_max_s)?;
    if samples.len() < SAMPLES_MIN {
        return Err(InvalidAudio::TooShort);
    }
    let peak = samples.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0).min(32_767);
    let length_ms = u32::try_from(samples.len() as u64 * 1_000 / u64::from(RATE)).unwrap_or(u32::MAX);
    let wav = write(&samples).map_err(|error| InvalidAudio::Broken(error.to_string()))?;
    let sha256 = SoundHash::new(Sha256::digest(&wav).into());
    Ok(Converted { sound: Sound { sha256, wav: wav.into(), length_ms }, peak })
}

fn source(file: Vec<u8>) -> MediaSourceStream {
    MediaSourceStream::new(
        Box::new(Cursor::new(file)),
        symphonia::core::io::MediaSourceStreamOptions::default(),
    )
}

fn broken(error: Error) -> InvalidAudio {
    match error {
        Error::Unsupported(what) => InvalidAudio::Unsupported(what.to_owned()),
        Error::IoError(_)
        | Error::DecodeError(_)
        | Error::SeekError(_)
        | Error::LimitError(_)
        | Error::ResetRequired => InvalidAudio::Broken(error.to_string()),
    }
}

/// What follows an ID3v2 tag; all of it where there is none.
fn after_id3(file: &[u8]) -> &[u8] {
    let Some([b'I', b'D', b'3', _, _, flags, size @ ..]) = file.get(..10) else { return file };
    // Four times seven bits.
    let length = size.iter().fold(0, |sum, byte| sum << 7 | usize::from(byte & 0x7f));
    let footer = if flags & 0x10 == 0 { 0 } else { 10 };
    file.get(10 + length + footer..).unwrap_or_default()
}

/// A WAV of nothing but its `data`, behind a `fmt ` chunk of our own: the decoder is not made for strangers' ones.
fn bare_wav(file: &[u8]) -> Result<Vec<u8>, InvalidAudio> {
    let mut rest = file.get(12..).unwrap_or_default();
    let mut format = None;
    while let Some((head, body)) = rest.split_first_chunk::<8>() {
        let (name, length) = head.split_at(4);
        let claimed = length.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let there = body.get(..claimed.min(body.len())).unwrap_or_default();
        match (name, &format) {
            (b"fmt ", None) => format = Some(WavFormat::read(there)?),
            (b"data", Some(format)) => {
                // Written as it came, a size of 0 or of 4 GiB means: to the end.
                return Ok(format.wav(if claimed == 0 { body } else { there }));
            }
            _ => {}
        }
        // Chunks begin at even places.
        rest = body.get(claimed + (claimed & 1)..).unwrap_or_default();
    }
    Err(InvalidAudio::Broken("the WAV has no fmt and data chunks".to_owned()))
}

/// What a `fmt ` chunk says, within what is taken.
struct WavFormat {
    tag: u16,
    channels: u16,
    rate: u32,
    bits: u16,
}

impl WavFormat {
    fn read(chunk: &[u8]) -> Result<Self, InvalidAudio> {
        let word = |at: usize| {
            let two = chunk.get(at..at + 2).and_then(|two| <[u8; 2]>::try_from(two).ok());
            two.map(u16::from_le_bytes).ok_or_else(|| InvalidAudio::Broken("a short fmt chunk".to_owned()))
        };
        let tag = match word(0)? {
            EXTENSIBLE => word(24)?,
            tag => tag,
        };
        let rate = u32::from(word(4)?) | u32::from(word(6)?) << 16;
        let format = Self { tag, channels: word(2)?, rate, bits: word(14)? };
        let known = match format.tag {
            PCM => matches!(format.bits, 8 | 16 | 24 | 32),
            FLOAT => matches!(format.bits, 32 | 64),
            A_LAW | MU_LAW => format.bits == 8,
            _ => false,
        };
        let Self { tag, channels, rate, bits } = format;
        let is_taken = known && (1..=CHANNELS_MAX).contains(&channels.into()) && RATES.contains(&rate);
        let why = || format!("format {tag} of {rate} Hz, {bits} bits, {channels} channels");
        if is_taken { Ok(format) } else { Err(InvalidAudio::Unsupported(why())) }
    }

    fn wav(&self, data: &[u8]) -> Vec<u8> {
        let Self { tag, channels, rate, bits } = *self;
        let frame = channels * (bits / 8);
        let format_size: u32 = if tag == PCM { 16 } else { 18 };
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX - 64);
        let mut out = Vec::with_capacity(64 + data.len());
        out.extend_from_slice(b"RIFF");
        out.extend_from_slice(&(20 + format_size + size).to_le_bytes());
        out.extend_from_slice(b"WAVEfmt ");
        out.extend_from_slice(&format_size.to_le_bytes());
        for word in [tag, channels] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for long in [rate, rate * u32::from(frame)] {
            out.extend_from_slice(&long.to_le_bytes());
        }
        for word in [frame, bits] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        if tag != PCM {
            out.extend_from_slice(&[0, 0]);
        }
        out.extend_from_slice(b"data");
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(data);
        out
    }
}

/// Decoded, mixed down and resampled.
fn decode(mut reader: Box<dyn FormatReader>, length_max_s: u32) -> Result<Vec<i16>, InvalidAudio> {
    let track = reader.tracks().iter().find(|track| track.codec_params.codec != CODEC_TYPE_NULL);
    let track = track.ok_or_else(|| InvalidAudio::Broken("no sound in it".to_owned()))?;
    let id = track.id;
    let mut decoder = symphonia::default::get_codecs()
        .make(&track.codec_params, &DecoderOptions::default())
        .map_err(broken)?;
    let mut mixer: Option<Mixer> = None;
    let mut broken_frames = 0;
    loop {
        let packet = match reader.next_packet() {
            Ok(packet) => packet,
            // The end, also of a file that was cut off: what is there counts.
            Err(Error::IoError(_)) => break,
            Err(error) => return Err(broken(error)),
        };
        if packet.track_id() != id {
            continue;
        }
        match decoder.decode(&packet) {
            Ok(decoded) => {
                let (spec, frames) = (*decoded.spec(), decoded.frames());
                if frames == 0 {
                    continue;
                }
                let mixer = match &mut mixer {
                    Some(mixer) if mixer.rate == spec.rate => mixer,
                    Some(_) => return Err(InvalidAudio::Unsupported("its rate changes".to_owned())),
                    none => none.insert(Mixer::new(spec.rate, length_max_s)?),
                };
                let channels = spec.channels.count();
                if !(1..=CHANNELS_MAX).contains(&channels) {
                    return Err(InvalidAudio::Unsupported(format!("{channels} channels")));
                }
                let mut samples = SampleBuffer::<f32>::new(decoded.capacity() as u64, spec);
                samples.copy_interleaved_ref(decoded);
                mixer.add(samples.samples(), channels)?;
            }
            Err(Error::DecodeError(_) | Error::IoError(_)) if broken_frames < BROKEN_MAX => {
                broken_frames += 1;
            }
            Err(error) => return Err(broken(error)),
        }
    }
    mixer.map_or(Err(InvalidAudio::TooShort), Mixer::finish)
}

/// One channel of [`RATE`] out of whatever comes.
struct Mixer {
    rate: u32,
    /// `None`: the rate is right.
    resampler: Option<SincFixedIn<f32>>,
    waiting: Vec<f32>,
    out: Vec<i16>,
    /// Of the input.
    frames: u64,
    frames_max: u64,
    length_max_s: u32,
    /// Samples that the resampler's filter puts before the first.
    delay: usize,
}

impl Mixer {
    fn new(rate: u32, length_max_s: u32) -> Result<Self, InvalidAudio> {
        if !RATES.contains(&rate) {
            return Err(InvalidAudio::Unsupported(format!("{rate} Hz")));
        }
        let parameters = SincInterpolationParameters {
            sinc_len: 256,
            f_cutoff: 0.95,
            interpolation: SincInterpolationType::Linear,
            oversampling_factor: 128,
            window: WindowFunction::BlackmanHarris2,
        };
        let resampler = if rate == RATE {
            None
        } else {
            let ratio = f64::from(RATE) / f64::from(rate);
            Some(
                SincFixedIn::new(ratio, 1.0, parameters, CHUNK, 1)
                    .map_err(|error| InvalidAudio::Broken(error.to_string()))?,
            )
        };
        let delay = resampler.as_ref().map_or(0, Resampler::output_delay);
        Ok(Self {
            rate,
            resampler,
            waiting: Vec::with_capacity(2 * CHUNK),
            out: Vec::new(),
            frames: 0,
            frames_max: u64::from(rate) * u64::from(length_max_s),
            length_max_s,
            delay,
        })
    }

    fn add(&mut self, interleaved: &[f32], channels: usize) -> Result<(), InvalidAudio> {
        self.frames += (interleaved.len() / channels) as u64;
        if self.frames > self.frames_max {
            return Err(InvalidAudio::TooLong(self.length_max_s));
        }
        #[allow(clippy::cast_precision_loss, reason = "at most eight")]
        let share = 1.0 / channels as f32;
        let mono = interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() * share);
        // Not a number: silence.
        self.waiting.extend(mono.map(|sample| if sample.is_finite() { sample } else { 0.0 }));
        let Some(resampler) = &mut self.resampler else {
            self.out.extend(self.waiting.drain(..).map(pcm));
            return Ok(());
        };
        let mut at = 0;
        while let Some(chunk) = self.waiting.get(at..at + CHUNK) {
            let made = resampler.process(&[chunk], None);
            let made = made.map_err(|error| InvalidAudio::Broken(error.to_string()))?;
            self.out.extend(made.into_iter().flatten().map(pcm));
            at += CHUNK;
        }
        self.waiting.drain(..at);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<i16>, InvalidAudio> {
        let Some(resampler) = &mut self.resampler else { return Ok(self.out) };
        let wanted = usize::try_from(self.frames * u64::from(RATE) / u64::from(self.rate)).unwrap_or(0);
        let failed = |error: rubato::ResampleError| InvalidAudio::Broken(error.to_string());
        let rest = std::mem::take(&mut self.waiting);
        let last = resampler.process_partial(Some(&[rest]), None).map_err(failed)?;
        self.out.extend(last.into_iter().flatten().map(pcm));
        // What is still in the filter.
        while self.out.len() < wanted + self.delay {
            let more = resampler.process_partial::<&[f32]>(None, None).map_err(failed)?;
            let before = self.out.len();
            self.out.extend(more.into_iter().flatten().map(pcm));
            if self.out.len() == before {
                break;
            }
        }
        self.out.drain(..self.delay.min(self.out.len()));
        self.out.truncate(wanted);
        Ok(self.out)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "clamped to what fits")]
fn pcm(sample: f32) -> i16 {
    (sample.clamp(-1.0, 1.0) * 32_767.0).round() as i16
}

fn write(samples: &[i16]) -> Result<Vec<u8>, hound::Error> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: RATE,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut out = Cursor::new(Vec::with_capacity(44 + 2 * samples.len()));
    let mut writer = hound::WavWriter::new(&mut out, spec)?;
    for sample in samples {
        writer.write_sample(*sample)?;
    }
    writer.finalize()?;
    Ok(out.into_inner())
}

#[cfg(test)]
mod tests;
