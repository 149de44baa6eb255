//! Every route of every door: one row each, from which the routers are built and over which tests go.
//!
//! A route without a row cannot exist, and a row cannot be without saying what it asks of whoever calls it: that is
//! looked at before the handler runs. `ids` says which things its path names, in the path's order, and so whose they are.

use axum::{
    Router,
    handler::Handler,
    http::Method,
    middleware::from_fn_with_state,
    routing::{MethodFilter, MethodRouter, on},
};
pub use controlplane_core::access::{Role, Scope};
use controlplane_core::access::{
    Role::{Admin, Operator, Viewer},
    Scope::{Audio, AuditRead, CallsRead, CallsWrite, Hooks, HooksSend, Keys, Webhooks},
};
use node_agent_protocol::{JOIN_PATH, LINK_PATH, RENEW_PATH};

use super::{
    State, agents, api_keys, audio, audit, auth, console, customers, events, oncall,
    openapi::{
        self, Operation,
        signature::Told,
        words::{self, Words},
    },
    operators, status, usage, webhooks,
};

/// Which listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `/v1`.
    Customers,
    /// `/admin/v1`, and what machines ask.
    Operators,
    /// `/agents/v1`.
    Agents,
    /// The public status, for strangers.
    Public,
}

/// What a route asks of whoever calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// A customer's key with at least one of these scopes.
    AnyOf(&'static [Scope]),
    /// An operator's key with this role or a higher one.
    Role(Role),
    /// A session of the console whose key has this role or a higher one; who has none is asked to sign in.
    Page(Role),
    /// An operator's key in the sign-in form; the handler looks at it.
    SignIn,
    /// A node's certificate; the handler looks at it.
    Certificate,
    /// A token for one use in the body; the handler looks at it.
    Token,
}

/// A thing that a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// `call_…`
    Call,
    /// A recording.
    Recording,
    /// `we_…`
    Endpoint,
    /// `we_…`, or `callback` for what calls bring along.
    Receiver,
    /// `evt_…`
    Event,
    /// `hook_…`
    Hook,
    /// `inc_…`
    Incident,
    /// `ntc_…`
    Notice,
    /// `key_…`
    Key,
    /// `org_…`
    Org,
    /// A node's name.
    Node,
    /// A trunk's name.
    Trunk,
    /// An AMI stream.
    Stream,
    /// A sound's hash.
    Sound,
}

/// Whose a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// An organisation's: to the others it is as one that there is not.
    Org,
    /// The fleet's.
    Fleet,
}

impl Id {
    /// Whose it is.
    #[must_use]
    pub const fn owner(self) -> Owner {
        match self {
            Self::Call
            | Self::Recording
            | Self::Endpoint
            | Self::Receiver
            | Self::Event
            | Self::Hook
            | Self::Incident
            | Self::Key => Owner::Org,
            Self::Notice | Self::Org | Self::Node | Self::Trunk | Self::Stream | Self::Sound => Owner::Fleet,
        }
    }
}

/// One row.
pub struct Route {
    /// Which listener.
    pub door: Door,
    /// Which method; GET is also HEAD.
    pub method: Method,
    /// Its address, with `{…}` for what it names.
    pub path: &'static str,
    /// What it asks of whoever calls it.
    pub needs: Needs,
    /// What its path names.
    pub ids: &'static [Id],
    /// What is told of it in the customers' API document.
    pub(super) operation: Option<Operation>,
    handler: MethodRouter<State>,
}

fn row<H: Handler<T, State>, T: 'static>(
    door: Door,
    (method, filter): (Method, MethodFilter),
    path: &'static str,
    needs: Needs,
    ids: &'static [Id],
    handler: H,
) -> Route {
    Route { door, method, path, needs, ids, operation: None, handler: on(filter, handler) }
}

/// A row of the customers' door: what the handler's types do not tell of it is in `words`.
fn told<H: Handler<T, State> + Told<A>, T: 'static, A>(
    method: (Method, MethodFilter),
    path: &'static str,
    needs: Needs,
    ids: &'static [Id],
    handler: H,
    words: &'static Words,
) -> Route {
    let operation = Some(Operation { words, tell: <H as Told<A>>::tell });
    Route { operation, ..row(Door::Customers, method, path, needs, ids, handler) }
}

const GET: (Method, MethodFilter) = (Method::GET, MethodFilter::GET);
const POST: (Method, MethodFilter) = (Method::POST, MethodFilter::POST);
const PUT: (Method, MethodFilter) = (Method::PUT, MethodFilter::PUT);
const PATCH: (Method, MethodFilter) = (Method::PATCH, MethodFilter::PATCH);
const DELETE: (Method, MethodFilter) = (Method::DELETE, MethodFilter::DELETE);

/// Every route.
#[must_use]
pub fn table() -> Vec<Route> {
    of_customers()
        .into_iter()
        .chain(of_operators())
        .chain(of_console())
        .chain(of_agents())
        .chain(of_public())
        .collect()
}

/// The customers' door.
#[rustfmt::skip]
fn of_customers() -> Vec<Route> {
    use Needs::{AnyOf, Nothing};
    vec![
        told(POST,   "/v1/calls",                                AnyOf(&[CallsWrite]),          &[],              customers::create,     &words::CREATE_CALL),
        told(GET,    "/v1/calls",                                AnyOf(&[CallsRead]),           &[],              customers::list,       &words::LIST_CALLS),
        told(GET,    "/v1/calls/{id}",                           AnyOf(&[CallsRead]),           &[Id::Call],      customers::show,       &words::SHOW_CALL),
        told(POST,   "/v1/calls/{id}/cancel",                    AnyOf(&[CallsWrite]),          &[Id::Call],      customers::cancel,     &words::CANCEL_CALL),
        told(POST,   "/v1/audio",                                AnyOf(&[Audio]),               &[],              audio::create,         &words::CREATE_AUDIO),
        told(GET,    "/v1/audio",                                AnyOf(&[Audio, CallsRead]),    &[],              audio::list,           &words::LIST_AUDIO),
        told(GET,    "/v1/audio/{id}",                           AnyOf(&[Audio, CallsRead]),    &[Id::Recording], audio::show,           &words::SHOW_AUDIO),
        told(DELETE, "/v1/audio/{id}",                           AnyOf(&[Audio]),               &[Id::Recording], audio::delete,         &words::DELETE_AUDIO),
        told(GET,    "/v1/audio/{id}/content",                   AnyOf(&[Audio, CallsRead]),    &[Id::Recording], audio::content,        &words::AUDIO_CONTENT),
        told(POST,   "/v1/webhook_endpoints",                    AnyOf(&[Webhooks]),            &[],              webhooks::create,      &words::CREATE_ENDPOINT),
        told(GET,    "/v1/webhook_endpoints",                    AnyOf(&[Webhooks, CallsRead]), &[],              webhooks::list,        &words::LIST_ENDPOINTS),
        told(GET,    "/v1/webhook_endpoints/{id}",               AnyOf(&[Webhooks, CallsRead]), &[Id::Endpoint],  webhooks::show,        &words::SHOW_ENDPOINT),
        told(PATCH,  "/v1/webhook_endpoints/{id}",               AnyOf(&[Webhooks]),            &[Id::Endpoint],  webhooks::change,      &words::CHANGE_ENDPOINT),
        told(DELETE, "/v1/webhook_endpoints/{id}",               AnyOf(&[Webhooks]),            &[Id::Endpoint],  webhooks::remove,      &words::DELETE_ENDPOINT),
        told(POST,   "/v1/webhook_endpoints/{id}/rotate_secret", AnyOf(&[Webhooks]),            &[Id::Endpoint],  webhooks::rotate,      &words::ROTATE_ENDPOINT),
        told(POST,   "/v1/webhook_endpoints/{id}/test",          AnyOf(&[Webhooks]),            &[Id::Endpoint],  webhooks::test,        &words::TEST_ENDPOINT),
        told(GET,    "/v1/webhook_endpoints/{id}/deliveries",    AnyOf(&[Webhooks, CallsRead]), &[Id::Receiver],  webhooks::deliveries::list, &words::LIST_DELIVERIES),
        told(POST,   "/v1/webhook_endpoints/{id}/deliveries/{event}/replay", AnyOf(&[Webhooks]), &[Id::Receiver, Id::Event], webhooks::deliveries::replay, &words::REPLAY_DELIVERY),
        told(GET,    "/v1/callback_secret",                      AnyOf(&[Webhooks]),            &[],              webhooks::callback::show,   &words::SHOW_CALLBACK_SECRET),
        told(POST,   "/v1/callback_secret/rotate",               AnyOf(&[Webhooks]),            &[],              webhooks::callback::rotate, &words::ROTATE_CALLBACK_SECRET),
        told(POST,   "/v1/hooks",                                AnyOf(&[Hooks]),               &[],              oncall::hooks::create, &words::CREATE_HOOK),
        told(GET,    "/v1/hooks",                                AnyOf(&[Hooks, CallsRead]),    &[],              oncall::hooks::list,   &words::LIST_HOOKS),
        told(GET,    "/v1/hooks/{id}",                           AnyOf(&[Hooks, CallsRead]),    &[Id::Hook],      oncall::hooks::show,   &words::SHOW_HOOK),
        told(PATCH,  "/v1/hooks/{id}",                           AnyOf(&[Hooks]),               &[Id::Hook],      oncall::hooks::change, &words::CHANGE_HOOK),
        told(DELETE, "/v1/hooks/{id}",                           AnyOf(&[Hooks]),               &[Id::Hook],      oncall::hooks::remove, &words::DELETE_HOOK),
        told(POST,   "/v1/hooks/alertmanager/{id}",              AnyOf(&[HooksSend]),           &[Id::Hook],      oncall::intake::alertmanager, &words::TELL_ALERTMANAGER),
        told(POST,   "/v1/hooks/json/{id}",                      AnyOf(&[HooksSend]),           &[Id::Hook],      oncall::intake::json,  &words::TELL_JSON),
        told(GET,    "/v1/incidents",                            AnyOf(&[Hooks, CallsRead]),    &[],              oncall::incidents::list, &words::LIST_INCIDENTS),
        told(GET,    "/v1/incidents/{id}",                       AnyOf(&[Hooks, CallsRead]),    &[Id::Incident],  oncall::incidents::show, &words::SHOW_INCIDENT),
        told(POST,   "/v1/incidents/{id}/acknowledge",           AnyOf(&[Hooks]),               &[Id::Incident],  oncall::incidents::acknowledge, &words::ACKNOWLEDGE_INCIDENT),
        told(POST,   "/v1/incidents/{id}/resolve",               AnyOf(&[Hooks]),               &[Id::Incident],  oncall::incidents::resolve, &words::RESOLVE_INCIDENT),
        told(GET,    "/v1/events",                               AnyOf(&[CallsRead]),           &[],              events::list,          &words::LIST_EVENTS),
        told(GET,    "/v1/limits",                               AnyOf(&[CallsRead]),           &[],              usage::limits,         &words::LIMITS_NOW),
        told(GET,    "/v1/usage",                                AnyOf(&[CallsRead]),           &[],              usage::usage,          &words::USAGE),
        told(POST,   "/v1/api_keys",                             AnyOf(&[Keys]),                &[],              api_keys::create,      &words::CREATE_KEY),
        told(GET,    "/v1/api_keys",                             AnyOf(&[Keys]),                &[],              api_keys::list,        &words::LIST_KEYS),
        told(GET,    "/v1/api_keys/{id}",                        AnyOf(&[Keys]),                &[Id::Key],       api_keys::show,        &words::SHOW_KEY),
        told(POST,   "/v1/api_keys/{id}/rotate",                 AnyOf(&[Keys]),                &[Id::Key],       api_keys::rotate,      &words::ROTATE_KEY),
        told(POST,   "/v1/api_keys/{id}/revoke",                 AnyOf(&[Keys]),                &[Id::Key],       api_keys::revoke,      &words::REVOKE_KEY),
        told(GET,    "/v1/audit_log",                            AnyOf(&[AuditRead]),           &[],              audit::of_customer,    &words::AUDIT_LOG),
        told(GET,    "/v1/openapi.json",                         Nothing,                       &[],              openapi::json_document, &words::DOCUMENT),
        told(GET,    "/v1/reference",                            Nothing,                       &[],              openapi::page,         &words::REFERENCE),
        told(GET,    "/healthz",                                 Nothing,                       &[],              operators::healthz,    &words::HEALTH),
    ]
}

/// The operators' door. Viewers read, operators act on calls, bans, trunks and nodes, admins do the rest.
#[rustfmt::skip]
fn of_operators() -> Vec<Route> {
    use Needs::{Nothing, Role, Token};
    let at = Door::Operators;
    vec![
        row(at, POST, "/admin/v1/bootstrap",             Token,          &[],          operators::keys::bootstrap),
        row(at, GET,  "/admin/v1/fleet",                 Role(Viewer),   &[],          operators::fleet::show),
        row(at, POST, "/admin/v1/fleet",                 Role(Admin),    &[],          operators::fleet::apply),
        row(at, GET,  "/admin/v1/nodes",                 Role(Viewer),   &[],          operators::nodes),
        row(at, POST, "/admin/v1/nodes/{name}/token",    Role(Operator), &[Id::Node],  operators::agents::token),
        row(at, POST, "/admin/v1/nodes/{name}/revoke",   Role(Operator), &[Id::Node],  operators::agents::revoke),
        row(at, GET,  "/admin/v1/nodes/{name}/agent",    Role(Viewer),   &[Id::Node],  operators::agents::show),
        row(at, GET,  "/admin/v1/nodes/{name}/why",      Role(Viewer),   &[Id::Node],  operators::health::node_why),
        row(at, POST, "/admin/v1/nodes/{name}/drain",    Role(Operator), &[Id::Node],  operators::health::drain),
        row(at, POST, "/admin/v1/nodes/{name}/undrain",  Role(Operator), &[Id::Node],  operators::health::undrain),
        row(at, GET,  "/admin/v1/trunks/{name}/why",     Role(Viewer),   &[Id::Trunk], operators::health::trunk_why),
        row(at, POST, "/admin/v1/trunks/{name}/disable", Role(Operator), &[Id::Trunk], operators::health::disable),
        row(at, POST, "/admin/v1/trunks/{name}/enable",  Role(Operator), &[Id::Trunk], operators::health::enable),
        row(at, POST, "/admin/v1/trunks/{name}/canary",  Role(Operator), &[Id::Trunk], operators::health::canary),
        row(at, GET,  "/admin/v1/agents",                Role(Viewer),   &[],          operators::agents::list),
        row(at, GET,  "/admin/v1/trunks",                Role(Viewer),   &[],          operators::trunks),
        row(at, GET,  "/admin/v1/replicas",              Role(Viewer),   &[],          operators::replicas::list),
        row(at, GET,  "/admin/v1/routes",                Role(Viewer),   &[],          operators::routes),
        row(at, GET,  "/admin/v1/routes/explain",        Role(Viewer),   &[],          operators::explain),
        row(at, GET,  "/admin/v1/bans",                  Role(Viewer),   &[],          operators::bans::bans),
        row(at, POST, "/admin/v1/bans",                  Role(Operator), &[],          operators::bans::ban),
        row(at, POST, "/admin/v1/bans/remove",           Role(Operator), &[],          operators::bans::unban),
        row(at, GET,  "/admin/v1/bans/why",              Role(Viewer),   &[],          operators::bans::why),
        row(at, POST, "/admin/v1/bans/import",           Role(Operator), &[],          operators::bans::lists::import),
        row(at, GET,  "/admin/v1/bans/export",           Role(Viewer),   &[],          operators::bans::lists::export),
        row(at, GET,  "/admin/v1/allows",                Role(Viewer),   &[],          operators::bans::allows),
        row(at, POST, "/admin/v1/allows",                Role(Operator), &[],          operators::bans::allow),
        row(at, POST, "/admin/v1/allows/remove",         Role(Operator), &[],          operators::bans::disallow),
        row(at, GET,  "/admin/v1/keys",                  Role(Viewer),   &[],          operators::keys::list),
        row(at, POST, "/admin/v1/keys",                  Role(Admin),    &[],          operators::keys::create),
        row(at, POST, "/admin/v1/keys/{id}/revoke",      Role(Admin),    &[Id::Key],   operators::keys::revoke),
        row(at, POST, "/admin/v1/keys/{id}/rotate",      Role(Admin),    &[Id::Key],   operators::keys::rotate),
        row(at, GET,  "/admin/v1/keys/{id}/limits",      Role(Viewer),   &[Id::Key],   operators::rules::key_limits),
        row(at, PUT,  "/admin/v1/keys/{id}/limits",      Role(Admin),    &[Id::Key],   operators::rules::set_key_limits),
        row(at, GET,  "/admin/v1/orgs",                  Role(Viewer),   &[],          operators::orgs::list),
        row(at, POST, "/admin/v1/orgs",                  Role(Admin),    &[],          operators::orgs::create),
        row(at, GET,  "/admin/v1/orgs/{id}",             Role(Viewer),   &[Id::Org],   operators::orgs::show),
        row(at, PATCH, "/admin/v1/orgs/{id}",            Role(Admin),    &[Id::Org],   operators::orgs::rename),
        row(at, POST, "/admin/v1/orgs/{id}/suspend",     Role(Admin),    &[Id::Org],   operators::orgs::suspend),
        row(at, POST, "/admin/v1/orgs/{id}/resume",      Role(Admin),    &[Id::Org],   operators::orgs::resume),
        row(at, GET,  "/admin/v1/orgs/{id}/policy",      Role(Viewer),   &[Id::Org],   operators::rules::policy),
        row(at, PUT,  "/admin/v1/orgs/{id}/policy",      Role(Admin),    &[Id::Org],   operators::rules::set_policy),
        row(at, GET,  "/admin/v1/orgs/{id}/policy/explain", Role(Viewer), &[Id::Org],  operators::rules::explain),
        row(at, GET,  "/admin/v1/orgs/{id}/limits",      Role(Viewer),   &[Id::Org],   operators::rules::limits),
        row(at, PUT,  "/admin/v1/orgs/{id}/limits",      Role(Admin),    &[Id::Org],   operators::rules::set_limits),
        row(at, GET,  "/admin/v1/orgs/{id}/retention",   Role(Viewer),   &[Id::Org],   operators::rules::retention),
        row(at, PUT,  "/admin/v1/orgs/{id}/retention",   Role(Admin),    &[Id::Org],   operators::rules::set_retention),
        row(at, GET,  "/admin/v1/alarms",                Role(Viewer),   &[],          operators::rules::alarms),
        row(at, GET,  "/admin/v1/audit",                 Role(Viewer),   &[],          audit::list),
        row(at, GET,  "/admin/v1/audit/export",          Role(Viewer),   &[],          audit::export::export),
        row(at, GET,  "/admin/v1/audit/heads",           Role(Viewer),   &[],          audit::heads),
        row(at, GET,  "/admin/v1/audit/key",             Role(Viewer),   &[],          audit::key),
        row(at, POST, "/admin/v1/erasures",              Role(Admin),    &[],          operators::erasures::create),
        row(at, GET,  "/admin/v1/webhooks/deliveries",   Role(Viewer),   &[],          webhooks::operators::list),
        row(at, POST, "/admin/v1/webhooks/deliveries/{event}/replay", Role(Operator), &[Id::Event], webhooks::operators::replay),
        row(at, POST, "/admin/v1/calls",                 Role(Operator), &[],          operators::calls::create),
        row(at, GET,  "/admin/v1/calls",                 Role(Viewer),   &[],          operators::calls::list),
        row(at, GET,  "/admin/v1/calls/{id}",            Role(Viewer),   &[Id::Call],  operators::calls::show),
        row(at, POST, "/admin/v1/calls/{id}/cancel",     Role(Operator), &[Id::Call],  operators::calls::cancel),
        row(at, GET,  "/admin/v1/held",                  Role(Operator), &[],          operators::held::list),
        row(at, POST, "/admin/v1/held/release",          Role(Operator), &[],          operators::held::release),
        row(at, GET,  "/admin/v1/hooks",                 Role(Viewer),   &[],          operators::oncall::list_hooks),
        row(at, POST, "/admin/v1/hooks",                 Role(Operator), &[],          operators::oncall::create_hook),
        row(at, GET,  "/admin/v1/hooks/{id}",            Role(Viewer),   &[Id::Hook],  operators::oncall::show_hook),
        row(at, DELETE, "/admin/v1/hooks/{id}",          Role(Operator), &[Id::Hook],  operators::oncall::delete_hook),
        row(at, GET,  "/admin/v1/incidents",             Role(Viewer),   &[],          operators::oncall::list),
        row(at, GET,  "/admin/v1/incidents/{id}",        Role(Viewer),   &[Id::Incident], operators::oncall::show),
        row(at, POST, "/admin/v1/incidents/{id}/acknowledge", Role(Operator), &[Id::Incident], operators::oncall::acknowledge),
        row(at, POST, "/admin/v1/incidents/{id}/resolve", Role(Operator), &[Id::Incident], operators::oncall::resolve),
        row(at, GET,  "/admin/v1/notices",               Role(Viewer),   &[],          operators::notices::list),
        row(at, POST, "/admin/v1/notices",               Role(Operator), &[],          operators::notices::create),
        row(at, POST, "/admin/v1/notices/{id}/updates",  Role(Operator), &[Id::Notice], operators::notices::more),
        row(at, DELETE, "/admin/v1/notices/{id}",        Role(Operator), &[Id::Notice], operators::notices::remove),
        row(at, GET,  "/metrics",                        Nothing,        &[],          operators::metrics),
        row(at, GET,  "/healthz",                        Nothing,        &[],          operators::healthz),
        row(at, GET,  "/readyz",                         Nothing,        &[],          operators::readyz),
    ]
}

/// The console, on the operators' door: pages, and what their forms and their script ask for.
#[rustfmt::skip]
fn of_console() -> Vec<Route> {
    use Needs::{Nothing, Page, SignIn};
    use console::{
        assets, audit as audit_log, bans, calls, customers as orgs, deliveries, explain, firewall, fleet, holds, incidents, live,
        node, notices, session, trunk,
    };
    let at = Door::Operators;
    vec![
        row(at, GET,  assets::STYLE.path.as_str(),       Nothing,        &[],          assets::style),
        row(at, GET,  assets::SCRIPT.path.as_str(),      Nothing,        &[],          assets::script),
        row(at, GET,  assets::ICON.path.as_str(),        Nothing,        &[],          assets::icon),
        row(at, GET,  "/sign-in",                        Nothing,        &[],          session::form),
        row(at, POST, "/sign-in",                        SignIn,         &[],          session::sign_in),
        row(at, POST, "/sign-out",                       Page(Viewer),   &[],          session::sign_out),
        row(at, GET,  "/live",                           Page(Viewer),   &[],          live::stream),
        row(at, GET,  "/",                               Page(Viewer),   &[],          fleet::show),
        row(at, GET,  "/nodes/{name}",                   Page(Viewer),   &[Id::Node],  node::show),
        row(at, GET,  "/nodes/{name}/drain",             Page(Operator), &[Id::Node],  holds::confirm_drain),
        row(at, POST, "/nodes/{name}/drain",             Page(Operator), &[Id::Node],  holds::drain),
        row(at, GET,  "/nodes/{name}/undrain",           Page(Operator), &[Id::Node],  holds::confirm_undrain),
        row(at, POST, "/nodes/{name}/undrain",           Page(Operator), &[Id::Node],  holds::undrain),
        row(at, GET,  "/trunks/{name}",                  Page(Viewer),   &[Id::Trunk], trunk::show),
        row(at, GET,  "/trunks/{name}/disable",          Page(Operator), &[Id::Trunk], holds::confirm_disable),
        row(at, POST, "/trunks/{name}/disable",          Page(Operator), &[Id::Trunk], holds::disable),
        row(at, GET,  "/trunks/{name}/enable",           Page(Operator), &[Id::Trunk], holds::confirm_enable),
        row(at, POST, "/trunks/{name}/enable",           Page(Operator), &[Id::Trunk], holds::enable),
        row(at, GET,  "/trunks/{name}/canary",           Page(Operator), &[Id::Trunk], trunk::confirm_canary),
        row(at, POST, "/trunks/{name}/canary",           Page(Operator), &[Id::Trunk], trunk::canary),
        row(at, GET,  "/calls",                          Page(Viewer),   &[],          calls::list),
        row(at, GET,  "/calls/new",                      Page(Operator), &[],          calls::form),
        row(at, POST, "/calls/new",                      Page(Operator), &[],          calls::place),
        row(at, GET,  "/calls/{id}",                     Page(Viewer),   &[Id::Call],  calls::show),
        row(at, GET,  "/calls/{id}/cancel",              Page(Operator), &[Id::Call],  calls::confirm_cancel),
        row(at, POST, "/calls/{id}/cancel",              Page(Operator), &[Id::Call],  calls::cancel),
        row(at, GET,  "/incidents",                      Page(Viewer),   &[],          incidents::list),
        row(at, GET,  "/incidents/{id}",                 Page(Viewer),   &[Id::Incident], incidents::show),
        row(at, GET,  "/incidents/{id}/acknowledge",     Page(Operator), &[Id::Incident], incidents::confirm_acknowledge),
        row(at, POST, "/incidents/{id}/acknowledge",     Page(Operator), &[Id::Incident], incidents::acknowledge),
        row(at, GET,  "/incidents/{id}/resolve",         Page(Operator), &[Id::Incident], incidents::confirm_resolve),
        row(at, POST, "/incidents/{id}/resolve",         Page(Operator), &[Id::Incident], incidents::resolve),
        row(at, GET,  "/notices",                        Page(Viewer),   &[],          notices::list),
        row(at, GET,  "/notices/new",                    Page(Operator), &[],          notices::form),
        row(at, POST, "/notices/new",                    Page(Operator), &[],          notices::create),
        row(at, GET,  "/notices/{id}/more",              Page(Operator), &[Id::Notice], notices::form_more),
        row(at, POST, "/notices/{id}/more",              Page(Operator), &[Id::Notice], notices::more),
        row(at, GET,  "/notices/{id}/remove",            Page(Operator), &[Id::Notice], notices::confirm_remove),
        row(at, POST, "/notices/{id}/remove",            Page(Operator), &[Id::Notice], notices::remove),
        row(at, GET,  "/routes",                         Page(Viewer),   &[],          explain::show),
        row(at, GET,  "/bans",                           Page(Viewer),   &[],          bans::show),
        row(at, GET,  "/bans/add",                       Page(Operator), &[],          bans::confirm_ban),
        row(at, POST, "/bans/add",                       Page(Operator), &[],          bans::ban),
        row(at, GET,  "/bans/remove",                    Page(Operator), &[],          bans::confirm_unban),
        row(at, POST, "/bans/remove",                    Page(Operator), &[],          bans::unban),
        row(at, GET,  "/allows/add",                     Page(Operator), &[],          bans::confirm_allow),
        row(at, POST, "/allows/add",                     Page(Operator), &[],          bans::allow),
        row(at, GET,  "/allows/remove",                  Page(Operator), &[],          bans::confirm_disallow),
        row(at, POST, "/allows/remove",                  Page(Operator), &[],          bans::disallow),
        row(at, GET,  "/firewall",                       Page(Viewer),   &[],          firewall::list),
        row(at, GET,  "/firewall/{name}",                Page(Viewer),   &[Id::Node],  firewall::show),
        row(at, GET,  "/customers",                      Page(Viewer),   &[],          orgs::list),
        row(at, GET,  "/customers/new",                  Page(Admin),    &[],          orgs::orgs::form),
        row(at, POST, "/customers/new",                  Page(Admin),    &[],          orgs::orgs::create),
        row(at, GET,  "/customers/{id}",                 Page(Viewer),   &[Id::Org],   orgs::show),
        row(at, GET,  "/customers/{id}/suspend",         Page(Admin),    &[Id::Org],   orgs::orgs::confirm_suspend),
        row(at, POST, "/customers/{id}/suspend",         Page(Admin),    &[Id::Org],   orgs::orgs::suspend),
        row(at, GET,  "/customers/{id}/resume",          Page(Admin),    &[Id::Org],   orgs::orgs::confirm_resume),
        row(at, POST, "/customers/{id}/resume",          Page(Admin),    &[Id::Org],   orgs::orgs::resume),
        row(at, GET,  "/customers/{id}/limits",          Page(Admin),    &[Id::Org],   orgs::limits::form),
        row(at, POST, "/customers/{id}/limits",          Page(Admin),    &[Id::Org],   orgs::limits::set),
        row(at, GET,  "/customers/{id}/destinations",    Page(Admin),    &[Id::Org],   orgs::destinations::form),
        row(at, POST, "/customers/{id}/destinations",    Page(Admin),    &[Id::Org],   orgs::destinations::set),
        row(at, GET,  "/customers/{id}/keys",            Page(Admin),    &[Id::Org],   orgs::keys::form),
        row(at, POST, "/customers/{id}/keys",            Page(Admin),    &[Id::Org],   orgs::keys::create),
        row(at, GET,  "/keys/{id}/rotate",               Page(Admin),    &[Id::Key],   orgs::keys::confirm_rotate),
        row(at, POST, "/keys/{id}/rotate",               Page(Admin),    &[Id::Key],   orgs::keys::rotate),
        row(at, GET,  "/keys/{id}/revoke",               Page(Admin),    &[Id::Key],   orgs::keys::confirm_revoke),
        row(at, POST, "/keys/{id}/revoke",               Page(Admin),    &[Id::Key],   orgs::keys::revoke),
        row(at, GET,  "/webhooks",                       Page(Viewer),   &[],          deliveries::list),
        row(at, GET,  "/webhooks/{event}/replay",        Page(Operator), &[Id::Event], deliveries::confirm),
        row(at, POST, "/webhooks/{event}/replay",        Page(Operator), &[Id::Event], deliveries::replay),
        row(at, GET,  "/audit",                          Page(Viewer),   &[],          audit_log::show),
        row(at, GET,  "/audit/verify",                   Page(Viewer),   &[],          audit_log::verify),
        row(at, GET,  "/audit/export",                   Page(Viewer),   &[],          audit::export::export),
    ]
}

/// The agents' door.
#[rustfmt::skip]
fn of_agents() -> Vec<Route> {
    use Needs::{Certificate, Token};
    let at = Door::Agents;
    vec![
        row(at, POST, JOIN_PATH,                   Token,       &[],           agents::join),
        row(at, POST, RENEW_PATH,                  Certificate, &[],           agents::renew),
        row(at, GET,  LINK_PATH,                   Certificate, &[],           agents::link),
        row(at, GET,  "/agents/v1/ami/{stream_id}", Certificate, &[Id::Stream], agents::ami),
        row(at, GET,  "/agents/v1/audio/{sound}",  Certificate, &[Id::Sound],  agents::audio),
    ]
}

/// The public status.
#[rustfmt::skip]
fn of_public() -> Vec<Route> {
    use Needs::Nothing;
    let at = Door::Public;
    vec![
        row(at, GET,  "/",                         Nothing,     &[],           status::page),
        row(at, GET,  "/status.json",              Nothing,     &[],           status::json),
        row(at, GET,  crate::status::style().0,    Nothing,     &[],           status::style),
    ]
}

/// A door's routes, each behind what its row asks for.
pub(super) fn router(door: Door, state: &State) -> Router<State> {
    let of_door = table().into_iter().filter(|route| route.door == door);
    of_door.fold(Router::new(), |router, route| {
        let admit = from_fn_with_state((state.clone(), route.needs), auth::admit);
        router.route(route.path, route.handler.route_layer(admit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path's names are as many as its row says, and each door asks for its own kind of proof.
    #[test]
    fn rows_say_what_their_paths_name_and_ask_for_their_doors_proof() {
        for route in table() {
            let (named, path) = (route.path.matches('{').count(), route.path);
            assert_eq!(named, route.ids.len(), "{path}");
            assert!(
                match (route.door, route.needs) {
                    (_, Needs::Nothing) => named == 0,
                    (Door::Customers, _) => path.starts_with("/v1/"),
                    (Door::Operators, Needs::Page(_) | Needs::SignIn) => !path.starts_with("/admin/"),
                    (Door::Operators, _) => path.starts_with("/admin/v1/"),
                    (Door::Agents, _) => path.starts_with("/agents/v1/"),
                    // Whoever comes there shows nothing.
                    (Door::Public, _) => false,
                },
                "{path}"
            );
            let fits = match route.needs {
                Needs::Nothing => route.method == Method::GET,
                Needs::AnyOf(scopes) => route.door == Door::Customers && !scopes.is_empty(),
                Needs::Role(role) => {
                    route.door == Door::Operators && (route.method == Method::GET || role > Role::Viewer)
                }
                // Who may look may leave.
                Needs::Page(role) => {
                    route.door == Door::Operators
                        && (route.method == Method::GET || role > Role::Viewer || path == "/sign-out")
                }
                Needs::SignIn => route.door == Door::Operators && path == "/sign-in",
                Needs::Certificate => route.door == Door::Agents,
                Needs::Token => true,
            };
            assert!(fits, "{} {path}", route.method);
        }
    }
}
