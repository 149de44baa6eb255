//! An expression that reads a line straight through: whole words are compared and runs of bytes are skipped, instead of one
//! step of an automaton for each byte.
//!
//! It is right only where an expression is one-pass: there, at each byte there is at most one way to go on. So a run may take
//! all it can, the byte that comes next tells which branch it is and whether a group comes once more, and what fails later
//! fails altogether. Whoever makes a [`Straight`] shows before that the one-pass automaton can be built. Two things more are
//! asked here: that the expression is anchored at both ends, since otherwise a text could fit before it fails; and that no two
//! branches begin with the same byte, which an automaton that joins their common beginning would allow.

use regex_automata::{
    PatternID,
    util::{captures::Captures, primitives::NonMaxUsize},
};
use regex_syntax::hir::{Class, ClassBytes, Hir, HirKind, Look, Repetition};

/// One expression.
#[derive(Debug)]
pub(super) struct Straight(Box<[Step]>);

#[derive(Debug)]
enum Step {
    Words(Box<[u8]>),
    Run {
        of: Bytes,
        times: Times,
    },
    Group {
        begins: Bytes,
        steps: Box<[Step]>,
        times: Times,
    },
    /// One of these, by the first byte; the last one may be empty.
    Choice(Box<[(Bytes, Box<[Step]>)]>),
    /// Here begins or ends a part.
    Slot(usize),
    Begin,
    End,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    min: usize,
    max: usize,
}

/// A set of bytes.
#[derive(Debug, Clone)]
struct Bytes {
    has: Box<[bool; 256]>,
    /// All but this one.
    all_but: Option<u8>,
}

impl Bytes {
    fn of(bytes: impl IntoIterator<Item = u8>) -> Self {
        let mut has = Box::new([false; 256]);
        for byte in bytes {
            has[usize::from(byte)] = true;
        }
        let mut others = (0..=u8::MAX).filter(|byte| !has[usize::from(*byte)]);
        let all_but = others.next().filter(|_| others.next().is_none());
        Self { has, all_but }
    }

    fn class(class: &ClassBytes) -> Self {
        Self::of(class.iter().flat_map(|range| range.start()..=range.end()))
    }

    fn has(&self, byte: u8) -> bool {
        self.has[usize::from(byte)]
    }

    /// How many bytes at the beginning are of these.
    fn run(&self, text: &[u8]) -> usize {
        let end = match self.all_but {
            Some(byte) => memchr::memchr(byte, text),
            None => text.iter().position(|byte| !self.has(*byte)),
        };
        end.unwrap_or(text.len())
    }
}

impl Straight {
    /// Of a one-pass expression. `None`: it has what cannot be read so, which other readers can.
    pub(super) fn new(expression: &Hir) -> Option<Self> {
        let HirKind::Concat(parts) = expression.kind() else { return None };
        let mut steps = Vec::new();
        parts.iter().try_for_each(|part| add(&mut steps, part, true))?;
        let is_anchored = matches!(*steps, [Step::Begin, .., Step::End]);
        is_anchored.then(|| Self(steps.into_boxed_slice()))
    }

    /// Finds the parts.
    pub(super) fn read(&self, line: &[u8], parts: &mut Captures) {
        parts.set_pattern(None);
        parts.slots_mut().fill(None);
        if let Some(end) = run(&self.0, line, 0, parts.slots_mut()) {
            parts.set_pattern(Some(PatternID::ZERO));
            if let [from, to, ..] = parts.slots_mut() {
                (*from, *to) = (NonMaxUsize::new(0), NonMaxUsize::new(end));
            }
        }
    }
}

/// From `at` on; gives where it ended.
fn run(steps: &[Step], line: &[u8], mut at: usize, slots: &mut [Option<NonMaxUsize>]) -> Option<usize> {
    for step in steps {
        let rest = line.get(at..)?;
        match step {
            Step::Words(words) => at += rest.starts_with(words).then_some(words.len())?,
            Step::Run { of, times } => {
                let length = of.run(rest.get(..times.max).unwrap_or(rest));
                at += (length >= times.min).then_some(length)?;
            }
            Step::Group { begins, steps, times } => {
                let mut count = 0;
                while count < times.max && line.get(at).is_some_and(|byte| begins.has(*byte)) {
                    at = run(steps, line, at, slots)?;
                    count += 1;
                }
                if count < times.min {
                    return None;
                }
            }
            Step::Choice(branches) => {
                let goes = |(begins, steps): &&(Bytes, Box<[Step]>)| {
                    steps.is_empty() || rest.first().is_some_and(|byte| begins.has(*byte))
                };
                at = run(&branches.iter().find(goes)?.1, line, at, slots)?;
            }
            Step::Slot(slot) => *slots.get_mut(*slot)? = NonMaxUsize::new(at),
            Step::Begin if at == 0 => {}
            Step::End if rest.is_empty() => {}
            Step::Begin | Step::End => return None,
        }
    }
    Some(at)
}

fn add(steps: &mut Vec<Step>, part: &Hir, is_outermost: bool) -> Option<()> {
    match part.kind() {
        HirKind::Empty => {}
        HirKind::Literal(words) => steps.push(Step::Words(words.0.clone())),
        HirKind::Class(Class::Bytes(class)) => {
            steps.push(Step::Run { of: Bytes::class(class), times: Times { min: 1, max: 1 } });
        }
        HirKind::Look(Look::Start) if is_outermost => steps.push(Step::Begin),
        HirKind::Look(Look::End) if is_outermost => steps.push(Step::End),
        HirKind::Class(Class::Unicode(_)) | HirKind::Look(_) => return None,
        HirKind::Repetition(Repetition { min, max, sub, .. }) => {
            let max = max.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX);
            let times = Times { min: usize::try_from(*min).ok()?, max };
            if let HirKind::Class(Class::Bytes(class)) = sub.kind() {
                steps.push(Step::Run { of: Bytes::class(class), times });
            } else {
                let (begins, inner) = branch(sub)?;
                steps.push(Step::Group { begins, steps: inner, times });
            }
        }
        HirKind::Capture(capture) => {
            let slot = usize::try_from(capture.index).ok()? * 2;
            steps.push(Step::Slot(slot));
            add(steps, &capture.sub, false)?;
            steps.push(Step::Slot(slot + 1));
        }
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| add(steps, part, false))?,
        HirKind::Alternation(parts) => {
            let (last, others) = parts.split_last()?;
            let mut branches = others.iter().map(branch).collect::<Option<Vec<_>>>()?;
            branches.push(match last.kind() {
                HirKind::Empty => (Bytes::of([]), Box::default()),
                HirKind::Literal(_)
                | HirKind::Class(_)
                | HirKind::Look(_)
                | HirKind::Repetition(_)
                | HirKind::Capture(_)
                | HirKind::Concat(_)
                | HirKind::Alternation(_) => branch(last)?,
            });
            let are_apart =
                (0..=u8::MAX).all(|byte| branches.iter().filter(|(begins, _)| begins.has(byte)).count() <= 1);
            are_apart.then(|| steps.push(Step::Choice(branches.into_boxed_slice())))?;
        }
    }
    Some(())
}

/// Steps that take at least one byte, and which bytes can be the first.
fn branch(part: &Hir) -> Option<(Bytes, Box<[Step]>)> {
    let mut steps = Vec::new();
    add(&mut steps, part, false)?;
    let mut first = Vec::new();
    // What may be empty could be chosen without its first byte.
    let takes_one = begins(&steps, &mut first);
    takes_one.then(|| (Bytes::of(first), steps.into_boxed_slice()))
}

/// Adds the bytes with which these steps can begin. Says whether they take at least one.
fn begins(steps: &[Step], first: &mut Vec<u8>) -> bool {
    let mut all = |of: &Bytes| first.extend((0..=u8::MAX).filter(|byte| of.has(*byte)));
    for step in steps {
        let takes_one = match step {
            Step::Words(words) => {
                all(&Bytes::of(words.first().copied()));
                !words.is_empty()
            }
            Step::Run { of, times } | Step::Group { begins: of, times, .. } => {
                all(of);
                times.min > 0
            }
            Step::Choice(branches) => {
                branches.iter().for_each(|(begins, _)| all(begins));
                branches.iter().all(|(_, steps)| !steps.is_empty())
            }
            Step::Slot(_) | Step::Begin | Step::End => false,
        };
        if takes_one {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex_automata::{dfa::onepass, util::syntax};

    use super::*;

    /// One-pass ones, with every kind of step.
    const EXPRESSIONS: &[&str] = &[
        r#"^a="(?P<x>[^"]*)",b="[^"]*"(?:,c="(?P<y>[-a-z]*)")?$"#,
        r"^(?P<t>\d\d(?:-\d{1,3}|/[A-Z][a-z]*)|[A-Z]+ \d) (?P<h>[0-9a-f:.]+)$",
        r"^(?:ab,){1,3}(?P<x>c|dd|)(?:;(?P<y>[^;\n]*))*$",
        r"^x.*$",
        r"^(?P<x>a)?(?:b|[cd]e?)+f{2}$",
    ];

    fn parse(text: &str) -> Hir {
        regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(text).unwrap()
    }

    fn slots(parts: &Captures) -> Vec<Option<(usize, usize)>> {
        let groups = 0..parts.group_len();
        groups.map(|group| parts.get_group(group).map(|span| (span.start, span.end))).collect()
    }

    #[test]
    fn what_the_next_byte_cannot_tell_is_left_to_others() {
        let looks_and_empty_groups = [r"^(?:a|$)", r"^(?:b*)*c$", r"^a(?:^b)?$", r"^a\b$", "^(?:|a)b$"];
        // One-pass, but `ab` fits the first, and an automaton joins the beginnings of the last.
        let may_end_before_and_alike = ["^a(?:bc)?", "^(?P<x>a*?)", "a$", "^(?:foo|fob)$"];
        for text in looks_and_empty_groups.into_iter().chain(may_end_before_and_alike) {
            assert!(Straight::new(&parse(text)).is_none(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        /// Texts of the expressions' own bytes, so that many fit or nearly do.
        #[test]
        fn it_reads_what_the_one_pass_automaton_reads(
            which in 0..EXPRESSIONS.len(),
            text in "(a=\"[a\",=]{0,4}\",b=\"[ab]{0,3}\"(,c=\"[-a\"]{0,3}\")?|[0-9A-B]{2}[-/ ][A-Ba-b0-9]{0,4} [0-9a:g.]{0,4}|(ab,){0,4}[cd]{0,3}(;[;a\n]{0,3}){0,3}|x[ax\n]{0,5}|a?[bcde]{0,5}f{0,3})",
        ) {
            let expression = EXPRESSIONS[which];
            let dfa = onepass::Builder::new()
                .syntax(syntax::Config::new().unicode(false).utf8(false))
                .build(expression)
                .unwrap();
            let (mut cache, mut wanted, mut found) =
                (dfa.create_cache(), dfa.create_captures(), dfa.create_captures());
            dfa.captures(&mut cache, text.as_bytes(), &mut wanted);
            Straight::new(&parse(expression)).unwrap().read(text.as_bytes(), &mut found);
            prop_assert_eq!(found.is_match(), wanted.is_match());
            if wanted.is_match() {
                prop_assert_eq!(slots(&found), slots(&wanted));
            }
        }
    }
}
