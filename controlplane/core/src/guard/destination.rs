//! Where a number leads: its country, and what kind of number it is there.

use phonenumber::{
    Metadata,
    metadata::{DATABASE, Descriptor},
};
use serde::{Deserialize, Serialize};

use crate::{
    call::{UnknownWord, words},
    number::E164,
    schema::text_schema,
};

words! {
    /// What kind of number it is, as its country's numbering plan says.
    NumberKind {
        /// A fixed line.
        Fixed = "fixed",
        /// A mobile telephone.
        Mobile = "mobile",
        /// One of the two; the plan does not tell them apart, as in North America.
        FixedOrMobile = "fixed_or_mobile",
        /// The callee pays.
        TollFree = "toll_free",
        /// The callee earns by it.
        Premium = "premium",
        /// Caller and callee pay.
        SharedCost = "shared_cost",
        /// Follows its owner, at whatever price.
        Personal = "personal",
        /// Not of a place.
        Voip = "voip",
        /// A company's number for the whole country.
        Uan = "uan",
        /// A pager.
        Pager = "pager",
        /// A mailbox.
        Voicemail = "voicemail",
        /// A telephone that is reached by satellite (+870, +881).
        Satellite = "satellite",
        /// A network of no country (+882, +883), often dear and often misused.
        InternationalNetwork = "international_network",
        /// International premium rate (+979).
        InternationalPremium = "international_premium",
        /// No plan has given such a number to anybody. No country opens it, a prefix alone.
        Unassigned = "unassigned",
    }
}

/// A country as ISO 3166-1 alpha-2 (`PL`), or the calling code of what is of no country (`+870`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Country(Box<str>);

/// Not a country.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a country is two capital letters as in PL, or a calling code of no country as in +870")]
pub struct InvalidCountry;

impl Country {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Country {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Country {
    type Err = InvalidCountry;

    /// Only what the numbering plans know: a misspelt country must not look open.
    fn from_str(text: &str) -> Result<Self, InvalidCountry> {
        let is_known = match text.strip_prefix('+') {
            Some(code) => {
                code.parse().ok().and_then(|code: u16| DATABASE.region(&code)) == Some(vec![NO_COUNTRY])
            }
            None => text.len() == 2 && DATABASE.by_id(text).is_some(),
        };
        if is_known { Ok(Self(text.into())) } else { Err(InvalidCountry) }
    }
}

impl TryFrom<String> for Country {
    type Error = InvalidCountry;

    fn try_from(text: String) -> Result<Self, InvalidCountry> {
        text.parse()
    }
}

impl From<Country> for String {
    fn from(country: Country) -> Self {
        country.0.into()
    }
}

text_schema!(Country, "^([A-Z]{2}|\\+[0-9]{1,3})$", "PL");

/// The numbering plans' word for a calling code of no country.
const NO_COUNTRY: &str = "001";

/// Where a number leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Destination {
    /// `None`: the number is of no country that is known, or of none of several that share its calling code.
    pub country: Option<Country>,
    /// What it is there.
    pub kind: NumberKind,
}

impl Destination {
    /// Reads the numbering plans, which takes a fraction of a second and some 16 MB: before a call waits for it.
    pub fn read_plans() {
        DATABASE.by_id("PL");
    }

    /// Looks a number up in the numbering plans, and reads them first where they were not.
    #[must_use]
    pub fn of(number: &E164) -> Self {
        let unknown = Self { country: None, kind: NumberKind::Unassigned };
        let Some((code, regions)) = calling_code(number) else { return unknown };
        let national = &number.digits()[code.len()..];
        if regions == [NO_COUNTRY] {
            let country = Some(Country(format!("+{code}").into()));
            return Self { country, kind: of_no_country(code, national) };
        }
        // One that has the calling code alone is meant even where it has given no such number.
        if let [only] = regions.as_slice() {
            let kind = DATABASE.by_id(*only).map_or(NumberKind::Unassigned, |plan| kind_in(plan, national));
            return Self { country: Some(Country((*only).into())), kind };
        }
        let assigned = regions.iter().find_map(|id| {
            let kind = kind_in(DATABASE.by_id(*id)?, national);
            (kind != NumberKind::Unassigned).then(|| Self { country: Some(Country((*id).into())), kind })
        });
        assigned.unwrap_or(unknown)
    }
}

/// Calling codes are such that none begins another.
fn calling_code(number: &E164) -> Option<(&str, Vec<&'static str>)> {
    (1..=3).find_map(|length| {
        let code = number.digits().get(..length)?;
        Some((code, DATABASE.region(&code.parse::<u16>().ok()?)?))
    })
}

fn of_no_country(code: &str, national: &str) -> NumberKind {
    match code {
        "870" | "881" => NumberKind::Satellite,
        "882" | "883" => NumberKind::InternationalNetwork,
        "979" => NumberKind::InternationalPremium,
        "808" => NumberKind::SharedCost,
        _ => {
            let plan = code.parse::<u16>().ok().and_then(|code| DATABASE.by_code(&code)?.into_iter().next());
            plan.map_or(NumberKind::Unassigned, |plan| kind_in(plan, national))
        }
    }
}

/// What costs more is looked for first: a number that is two things counts as the dearer one, and so does one that only begins
/// as a dear one of its length does, which the plans' patterns let pass.
fn kind_in(plan: &Metadata, national: &str) -> NumberKind {
    let all = plan.descriptors();
    let is = |of: Option<&Descriptor>| of.is_some_and(|of| of.is_match(national));
    if !all.general().is_match(national) {
        return NumberKind::Unassigned;
    }
    let dear = [
        (all.premium_rate(), NumberKind::Premium),
        (all.shared_cost(), NumberKind::SharedCost),
        (all.personal_number(), NumberKind::Personal),
        (all.toll_free(), NumberKind::TollFree),
        (all.voip(), NumberKind::Voip),
        (all.pager(), NumberKind::Pager),
        (all.uan(), NumberKind::Uan),
        (all.voicemail(), NumberKind::Voicemail),
    ];
    if let Some((_, kind)) = dear.into_iter().find(|(of, _)| is(*of)) {
        return kind;
    }
    match (is(all.fixed_line()), is(all.mobile())) {
        (true, true) => NumberKind::FixedOrMobile,
        (true, false) => NumberKind::Fixed,
        (false, true) => NumberKind::Mobile,
        (false, false) => NumberKind::Unassigned,
    }
}
