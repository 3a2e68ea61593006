//! The field section, line by line: the same grammar for requests, replies and trailers.

use super::bytes::is_token;
use super::bytes::skip_token;
use super::bytes::skip_value;
use super::bytes::usual_token;
use super::bytes::whole_value;

/// A range of positions in the buffer that a message was read from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::message) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// From the first position to before the second.
    pub(in crate::message) fn new(start: usize, end: usize) -> Self {
        Self { start: position(start), end: position(end) }
    }

    /// Its first position.
    pub(in crate::message) fn start(self) -> usize {
        self.start as usize
    }

    /// The position behind it.
    pub(in crate::message) fn end(self) -> usize {
        self.end as usize
    }

    /// How many bytes it is long.
    pub(in crate::message) fn len(self) -> usize {
        self.end().saturating_sub(self.start())
    }

    /// The bytes of the range; nothing when the buffer is not the one it was found in.
    pub(in crate::message) fn of(self, buf: &[u8]) -> &[u8] {
        buf.get(self.start()..self.end()).unwrap_or_default()
    }
}

/// Every head is far below 4 GiB: its limit is cut to [`super::MOST_BYTES`].
fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// What is wrong with a field section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::message) enum FieldFault {
    /// A line that is not `token ":" OWS value OWS` (RFC 9112 §5).
    Malformed,
    /// A line that begins with whitespace (RFC 9112 §5.2).
    Folded,
    /// A line end that is not CRLF (RFC 9112 §2.2).
    BareLineFeed,
    /// A control byte in a value (RFC 9110 §5.5).
    ControlByte,
    /// More fields than allowed.
    TooMany,
}

/// What the scanner came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::message) enum Step {
    /// The buffer ends before the next field does.
    NeedMore,
    /// One field line, the whitespace around its value left out.
    Field(Span, Span),
    /// The empty line; the position after it.
    End(usize),
    /// The section is not one.
    Fault(FieldFault),
}

#[derive(Debug, Clone, Copy, Default)]
enum Place {
    #[default]
    LineStart,
    Name,
    BeforeValue,
    Value,
    ValueEnd,
    SectionEnd,
}

/// A field line as nearly all are: it is there as a whole, and says `name: value` without more whitespace than that.
#[derive(Debug, Clone, Copy)]
pub(in crate::message) struct Usual<'a> {
    pub(in crate::message) name: &'a [u8],
    pub(in crate::message) value: &'a [u8],
    /// The position of its name.
    at: usize,
}

impl<'a> Usual<'a> {
    /// What stands between the name and the value.
    const BETWEEN: &'static [u8] = b": ";
    /// What stands behind the value.
    const END: &'static [u8] = b"\r\n";

    /// The line that begins there; `None` leaves it to who looks at one byte after the other.
    #[inline]
    fn at(at: usize, buf: &'a [u8]) -> Option<Self> {
        let rest = buf.get(at..)?;
        let (name, rest) = rest.split_at_checked(usual_token(rest)?)?;
        let rest = rest.strip_prefix(Self::BETWEEN)?;
        let (value, rest) = rest.split_at_checked(whole_value(rest)?)?;
        let is_usual = !name.is_empty()
            && rest.starts_with(Self::END)
            && !matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']);
        is_usual.then_some(Self { name, value, at })
    }

    /// Where its name stands, and its value.
    #[inline]
    pub(in crate::message) fn spans(&self) -> (Span, Span) {
        let name = self.at + self.name.len();
        let value = name + Self::BETWEEN.len();
        (Span::new(self.at, name), Span::new(value, value + self.value.len()))
    }

    /// The position behind it.
    #[inline]
    fn end(&self) -> usize {
        let between = Self::BETWEEN.len() + Self::END.len();
        self.at + self.name.len() + self.value.len() + between
    }
}

/// Reads a field section from a buffer that only grows, and looks at every byte once where it comes whole.
#[derive(Debug, Default)]
pub(in crate::message) struct FieldScanner {
    at: usize,
    place: Place,
    line: usize,
    name: Span,
    value: Span,
    count: usize,
}

impl FieldScanner {
    /// A scanner of the section that begins at this position.
    pub(in crate::message) fn new(at: usize) -> Self {
        Self { at, ..Self::default() }
    }

    /// Shows all lines from here on that are as nearly all are. What comes then, another line or the end, is for
    /// [`Self::step`].
    ///
    /// # Errors
    /// The first of `found`.
    #[inline]
    pub(in crate::message) fn usual_lines<'a, E>(
        &mut self,
        buf: &'a [u8],
        most: usize,
        mut found: impl FnMut(Usual<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        if !matches!(self.place, Place::LineStart) {
            return Ok(());
        }
        while self.count < most
            && let Some(line) = Usual::at(self.at, buf)
        {
            self.count += 1;
            self.at = line.end();
            found(line)?;
        }
        Ok(())
    }

    /// The next field, or the end. `buf` is the buffer of the last call, possibly grown.
    pub(in crate::message) fn step(&mut self, buf: &[u8], most: usize) -> Step {
        loop {
            let rest = buf.get(self.at..).unwrap_or_default();
            let Some(&first) = rest.first() else { return Step::NeedMore };
            match self.place {
                Place::LineStart => match first {
                    b'\r' => {
                        self.at += 1;
                        self.place = Place::SectionEnd;
                    }
                    b'\n' => return Step::Fault(FieldFault::BareLineFeed),
                    b' ' | b'\t' => return Step::Fault(FieldFault::Folded),
                    _ if !is_token(first) => return Step::Fault(FieldFault::Malformed),
                    _ if self.count >= most => return Step::Fault(FieldFault::TooMany),
                    _ => {
                        self.count += 1;
                        self.line = self.at;
                        self.place = Place::Name;
                    }
                },
                Place::Name => {
                    let length = skip_token(rest);
                    self.at += length;
                    match rest.get(length) {
                        None => return Step::NeedMore,
                        Some(b':') => {
                            self.name = Span::new(self.line, self.at);
                            self.at += 1;
                            self.place = Place::BeforeValue;
                        }
                        Some(b'\n') => return Step::Fault(FieldFault::BareLineFeed),
                        Some(_) => return Step::Fault(FieldFault::Malformed),
                    }
                }
                Place::BeforeValue => {
                    if first == b' ' || first == b'\t' {
                        self.at += 1;
                    } else {
                        self.line = self.at;
                        self.place = Place::Value;
                    }
                }
                Place::Value => {
                    let length = skip_value(rest);
                    self.at += length;
                    match rest.get(length) {
                        None => return Step::NeedMore,
                        Some(b'\r') => {
                            let value = buf.get(self.line..self.at).unwrap_or_default();
                            let spaces = value.iter().rev().take_while(|b| b" \t".contains(b));
                            self.value = Span::new(self.line, self.at - spaces.count());
                            self.at += 1;
                            self.place = Place::ValueEnd;
                        }
                        Some(b'\n') => return Step::Fault(FieldFault::BareLineFeed),
                        Some(_) => return Step::Fault(FieldFault::ControlByte),
                    }
                }
                Place::ValueEnd if first == b'\n' => {
                    self.at += 1;
                    self.place = Place::LineStart;
                    return Step::Field(self.name, self.value);
                }
                Place::SectionEnd if first == b'\n' => return Step::End(self.at + 1),
                Place::ValueEnd | Place::SectionEnd => {
                    return Step::Fault(FieldFault::BareLineFeed);
                }
            }
        }
    }
}

/// Gives a scanner that needs one contiguous buffer input that arrives in pieces. Nothing is copied
/// while a whole section lies within one piece, which is the ordinary case.
#[derive(Debug, Default)]
pub(in crate::message) struct Carry {
    held: Vec<u8>,
}

impl Carry {
    /// How many bytes of earlier pieces stand before the input.
    pub(in crate::message) fn len(&self) -> usize {
        self.held.len()
    }

    /// What is held and the input behind it, cut at `most` bytes.
    pub(in crate::message) fn join<'a>(&'a mut self, input: &'a [u8], most: usize) -> &'a [u8] {
        let taken = input.get(..most.saturating_sub(self.held.len())).unwrap_or(input);
        if self.held.is_empty() {
            return taken;
        }
        self.held.extend_from_slice(taken);
        &self.held
    }

    /// Keeps the input of the last [`Self::join`] for the next one.
    pub(in crate::message) fn keep(&mut self, input: &[u8]) {
        if self.held.is_empty() {
            self.held.extend_from_slice(input);
        }
    }
}
