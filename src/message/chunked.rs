//! The chunked coding, checked while it passes (RFC 9112 §7.1), and how long a body is.
//!
//! Nothing is decoded here: the bytes go on to the next parser as they came. The scanner makes sure
//! that this parser can read them in one way only, and says where the message ends.

mod body;
mod reader;
#[cfg(test)]
mod tests;

use std::fmt;

pub use self::body::BodyFraming;
pub use self::body::BodyScanner;
pub use self::reader::Chunk;
pub use self::reader::ChunkReader;
use super::head::bytes::is_value;
use super::head::fields::Carry;
use super::head::fields::FieldFault;
use super::head::fields::FieldScanner;
use super::head::fields::Step;

/// The most hexadecimal digits of a chunk size: those of a 64-bit number.
const MOST_DIGITS: u8 = 16;
/// The most bytes between a chunk size and its line end.
const MOST_EXTENSION: u16 = 256;
/// Extension bytes of a whole body, beyond as many as the body itself has.
const SPARE_EXTENSIONS: u64 = 16 << 10;
/// The most bytes of a trailer section.
const MOST_TRAILERS: usize = 8 << 10;
/// The most fields of a trailer section.
const MOST_TRAILER_FIELDS: usize = 64;

/// What one call of a scanner took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// How many bytes of the input belong to the body; the rest comes after it.
    pub consumed: usize,
    /// Whether the body has ended with them.
    pub done: bool,
}

/// Why a chunked body is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChunkFault {
    /// A chunk without a size. Some parsers take it for zero, and the body for complete.
    EmptySize,
    /// A byte in or behind a chunk size that does not belong there.
    BadSize,
    /// A chunk size of more than sixteen digits, or beyond a signed 64-bit number.
    SizeTooLarge,
    /// A line that does not end in CRLF (RFC 9112 §2.2).
    BareLineFeed,
    /// More than 256 bytes of extensions on one chunk, or in all far more than the body itself.
    ExtensionTooLong,
    /// A control byte in a chunk extension.
    ExtensionControl,
    /// The data of a chunk is not followed by CRLF.
    UnterminatedData,
    /// More than 8 KiB, or more than 64 fields, of trailers.
    TrailersTooLarge,
    /// The trailer section is not a field section.
    MalformedTrailer,
    /// A trailer that would change framing, or in a request routing or authentication (RFC 9110 §6.5.1).
    ForbiddenTrailer,
}

/// Whose body it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Of {
    /// A client's. Trailers that must be none are a fault: who sends them hopes that somebody takes them for fields.
    #[default]
    Request,
    /// An origin's. Trailers that must be none are as good as not there, like all of them: none is merged into the
    /// header, and none is passed on (RFC 9110 §6.5.1). Those that frame are a fault all the same: what looks like a
    /// header there may be one, behind a body whose end somebody saw elsewhere.
    Answer,
}

impl Of {
    fn forbids(self, trailer: &[u8]) -> bool {
        match self {
            Self::Request => is_forbidden(trailer),
            Self::Answer => [&b"content-length"[..], b"transfer-encoding"]
                .iter()
                .any(|known| trailer.eq_ignore_ascii_case(known)),
        }
    }
}

impl ChunkFault {
    /// The label in metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::EmptySize => "chunk_empty_size",
            Self::BadSize => "chunk_bad_size",
            Self::SizeTooLarge => "chunk_size_too_large",
            Self::BareLineFeed => "chunk_bare_line_feed",
            Self::ExtensionTooLong => "chunk_extension_too_long",
            Self::ExtensionControl => "chunk_extension_control",
            Self::UnterminatedData => "chunk_unterminated_data",
            Self::TrailersTooLarge => "chunk_trailers_too_large",
            Self::MalformedTrailer => "chunk_malformed_trailer",
            Self::ForbiddenTrailer => "chunk_forbidden_trailer",
        }
    }
}

impl fmt::Display for ChunkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptySize => "a chunk has no size",
            Self::BadSize => "a chunk size is malformed",
            Self::SizeTooLarge => "a chunk size is too large",
            Self::BareLineFeed => "a line of the chunked coding does not end in CRLF",
            Self::ExtensionTooLong => "chunk extensions are too long",
            Self::ExtensionControl => "a chunk extension holds a control byte",
            Self::UnterminatedData => "chunk data is not followed by CRLF",
            Self::TrailersTooLarge => "the trailer section is too large",
            Self::MalformedTrailer => "the trailer section is malformed",
            Self::ForbiddenTrailer => "a trailer field is one that must not be a trailer",
        })
    }
}

impl std::error::Error for ChunkFault {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Size,
    /// Whitespace behind the size, which only an extension may follow.
    SizeSpace,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    TrailerStart,
    Trailers,
    Done,
    Failed(ChunkFault),
}

/// Follows a chunked body through input that is cut anywhere.
///
/// A fault is final: every later call repeats it.
#[derive(Debug)]
pub struct ChunkScanner {
    place: Place,
    /// The size read so far; then the data that is still to come.
    left: u64,
    digits: u8,
    extension: u16,
    extensions: u64,
    data: u64,
    trailers: Option<Box<Trailers>>,
    of: Of,
}

#[derive(Debug, Default)]
struct Trailers {
    carry: Carry,
    fields: FieldScanner,
}

impl Default for ChunkScanner {
    fn default() -> Self {
        Self {
            place: Place::Size,
            left: 0,
            digits: 0,
            extension: 0,
            extensions: 0,
            data: 0,
            trailers: None,
            of: Of::default(),
        }
    }
}

impl ChunkScanner {
    /// A scanner at the start of this body.
    #[must_use]
    pub fn new(of: Of) -> Self {
        Self { of, ..Self::default() }
    }

    /// Bytes of chunk data seen so far, without sizes, extensions and trailers.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.data
    }

    /// Whether the last chunk and the trailer section have ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.place == Place::Done
    }

    /// Looks at the next bytes.
    ///
    /// # Errors
    /// The first breach of the grammar or of a bound; it is repeated from then on.
    pub fn feed(&mut self, input: &[u8]) -> Result<Fed, ChunkFault> {
        let outcome = self.follow(input);
        if let Err(fault) = outcome {
            self.place = Place::Failed(fault);
            self.trailers = None;
        }
        outcome
    }

    fn follow(&mut self, input: &[u8]) -> Result<Fed, ChunkFault> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match self.place {
                Place::Done => break,
                Place::Failed(fault) => return Err(fault),
                Place::Data => {
                    let here = input.len() - at;
                    let taken = usize::try_from(self.left).map_or(here, |left| left.min(here));
                    at += taken;
                    self.left -= taken as u64;
                    self.data = self.data.saturating_add(taken as u64);
                    if self.left == 0 {
                        self.place = Place::DataReturn;
                    }
                }
                Place::Trailers => {
                    at += self.trailer_section(input.get(at..).unwrap_or_default())?;
                }
                _ => {
                    self.place = self.line_byte(byte)?;
                    // The first byte of a trailer is left to the section it begins.
                    at += usize::from(self.place != Place::Trailers);
                }
            }
        }
        match self.place {
            Place::Failed(fault) => Err(fault),
            place => Ok(Fed { consumed: at, done: place == Place::Done }),
        }
    }

    /// One byte outside data and trailers; the place after it.
    fn line_byte(&mut self, byte: u8) -> Result<Place, ChunkFault> {
        match (self.place, byte) {
            (Place::Size, _) => self.size_byte(byte),
            (Place::SizeSpace, b' ' | b'\t') => self.extension_byte(Place::SizeSpace),
            (Place::SizeSpace, b';') => self.extension_byte(Place::Extension),
            (Place::SizeSpace, b'\n') => Err(ChunkFault::BareLineFeed),
            (Place::SizeSpace, _) => Err(ChunkFault::BadSize),
            (Place::Extension, b'\r') => Ok(Place::SizeLineFeed),
            (Place::Extension, b'\n') => Err(ChunkFault::BareLineFeed),
            (Place::Extension, _) if is_value(byte) => self.extension_byte(Place::Extension),
            (Place::Extension, _) => Err(ChunkFault::ExtensionControl),
            (Place::SizeLineFeed, b'\n') => {
                (self.digits, self.extension) = (0, 0);
                Ok(if self.left == 0 { Place::TrailerStart } else { Place::Data })
            }
            (Place::DataReturn, b'\r') => Ok(Place::DataLineFeed),
            (Place::DataLineFeed, b'\n') => Ok(Place::Size),
            (Place::DataReturn | Place::DataLineFeed, _) => Err(ChunkFault::UnterminatedData),
            (Place::TrailerStart, _) => {
                self.trailers = Some(Box::default());
                Ok(Place::Trailers)
            }
            (_, _) => Err(ChunkFault::BareLineFeed),
        }
    }

    fn size_byte(&mut self, byte: u8) -> Result<Place, ChunkFault> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\n' => return Err(ChunkFault::BareLineFeed),
            b'\r' | b';' | b' ' | b'\t' if self.digits == 0 => return Err(ChunkFault::EmptySize),
            b'\r' => return Ok(Place::SizeLineFeed),
            b';' => return self.extension_byte(Place::Extension),
            b' ' | b'\t' => return self.extension_byte(Place::SizeSpace),
            _ => return Err(ChunkFault::BadSize),
        };
        if self.digits == MOST_DIGITS {
            return Err(ChunkFault::SizeTooLarge);
        }
        self.digits += 1;
        // At the end of data nothing is left, so a new size begins at zero.
        self.left = self.left << 4 | u64::from(digit);
        if self.left > i64::MAX.unsigned_abs() {
            return Err(ChunkFault::SizeTooLarge);
        }
        Ok(Place::Size)
    }

    /// Counts one byte of an extension. Without the second bound a body of one-byte chunks could make
    /// us read two hundred times what it delivers.
    fn extension_byte(&mut self, place: Place) -> Result<Place, ChunkFault> {
        self.extension = self.extension.saturating_add(1);
        self.extensions = self.extensions.saturating_add(1);
        let allowed = SPARE_EXTENSIONS.saturating_add(self.data);
        if self.extension > MOST_EXTENSION || self.extensions > allowed {
            return Err(ChunkFault::ExtensionTooLong);
        }
        Ok(place)
    }

    /// Looks at the trailer section and says how much of the input belongs to it.
    fn trailer_section(&mut self, input: &[u8]) -> Result<usize, ChunkFault> {
        let Trailers { carry, fields } = &mut **self.trailers.get_or_insert_default();
        let before = carry.len();
        let section = carry.join(input, MOST_TRAILERS);
        loop {
            match fields.step(section, MOST_TRAILER_FIELDS) {
                Step::Field(name, _) => {
                    if self.of.forbids(name.of(section)) {
                        return Err(ChunkFault::ForbiddenTrailer);
                    }
                }
                Step::Fault(fault) => return Err(fault.into()),
                Step::End(end) => {
                    self.place = Place::Done;
                    self.trailers = None;
                    return Ok(end.saturating_sub(before));
                }
                Step::NeedMore if section.len() >= MOST_TRAILERS => {
                    return Err(ChunkFault::TrailersTooLarge);
                }
                Step::NeedMore => {
                    carry.keep(input);
                    return Ok(input.len());
                }
            }
        }
    }
}

impl From<FieldFault> for ChunkFault {
    fn from(fault: FieldFault) -> Self {
        match fault {
            FieldFault::Malformed | FieldFault::Folded | FieldFault::ControlByte => {
                Self::MalformedTrailer
            }
            FieldFault::BareLineFeed => Self::BareLineFeed,
            FieldFault::TooMany => Self::TrailersTooLarge,
        }
    }
}

/// Whether this field must not be a trailer: it frames, routes, authenticates or conditions the
/// message, or says how its content is read (RFC 9110 §6.5.1).
fn is_forbidden(name: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 4] = [b"content-", b"if-", b"proxy-", b"x-forwarded-"];
    const NAMES: [&[u8]; 23] = [
        b"age",
        b"authorization",
        b"cache-control",
        b"connection",
        b"cookie",
        b"date",
        b"expect",
        b"expires",
        b"forwarded",
        b"host",
        b"keep-alive",
        b"location",
        b"max-forwards",
        b"pragma",
        b"range",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"vary",
        b"via",
        b"www-authenticate",
    ];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
        || PREFIXES.iter().any(|prefix| {
            name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        })
}
