//! PURE. The Kubernetes objects of a cluster, built whole from its spec: the same spec gives the
//! same objects.
//!
//! A pod bears a hash of what it was made from, not of how it looks: a new operator that writes pods
//! in another way restarts nobody, unless [`pods::TEMPLATE_REVISION`] says that it must.
//!
//! | file | purpose |
//! |---|---|
//! | `names` | names and labels |
//! | `config` | the members' configuration file |
//! | `pods` | pods of super-nodes and of nodes |
//! | `shared` | services, budgets, accounts, secrets, volumes |
//!
//! Must not ask anybody: no client.

pub mod config;
pub mod names;
pub mod pods;
pub mod shared;
