"""What Schemathesis is told of that no schema says: recordings to upload, and moments that are still to come."""

import io
import wave
from datetime import datetime, timedelta, timezone

import schemathesis
from hypothesis import strategies as st

BEGAN = datetime.now(timezone.utc).replace(microsecond=0)


def wav(pattern: bytes, milliseconds: int, rate: int, channels: int) -> bytes:
    wanted = rate * channels * 2 * milliseconds // 1000
    samples = (pattern * (wanted // len(pattern) + 1))[:wanted]
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples)
    return buffer.getvalue()


whole = st.builds(
    wav,
    st.binary(min_size=1, max_size=64),
    st.integers(40, 200),
    st.sampled_from([8_000, 16_000, 44_100]),
    st.integers(1, 2),
)
cut = st.builds(lambda file, length: file[:length], whole, st.integers(0, 200))
anything = st.binary(max_size=2_000)

schemathesis.openapi.media_type("audio/wav", st.one_of(whole, cut, anything))
schemathesis.openapi.media_type("audio/mpeg", st.one_of(anything, whole))

# A call's deadline is at most a day ahead; nearly all moments that there are would be refused.
soon = st.integers(600, 80_000).map(lambda seconds: BEGAN + timedelta(seconds=seconds))
ever = st.datetimes(timezones=st.just(timezone.utc))
text = st.one_of(soon, soon, soon, ever).map(lambda moment: moment.isoformat().replace("+00:00", "Z"))

schemathesis.openapi.format("date-time", text)
