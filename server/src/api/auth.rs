//! The Auth service of a cluster on which authentication was never set up.
//!
//! There are no users and no roles, so whatever asks for one is told that it does not exist, as by an
//! etcd on which nobody added any. What etcd would store is refused: see [`not_stored`].

use quorate_proto::etcdserverpb::auth_server::Auth;
use quorate_proto::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse,
    AuthRoleAddRequest, AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse,
    AuthRoleGetRequest, AuthRoleGetResponse, AuthRoleGrantPermissionRequest,
    AuthRoleGrantPermissionResponse, AuthRoleListRequest, AuthRoleListResponse,
    AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse, AuthStatusRequest,
    AuthStatusResponse, AuthUserAddRequest, AuthUserAddResponse, AuthUserChangePasswordRequest,
    AuthUserChangePasswordResponse, AuthUserDeleteRequest, AuthUserDeleteResponse,
    AuthUserGetRequest, AuthUserGetResponse, AuthUserGrantRoleRequest, AuthUserGrantRoleResponse,
    AuthUserListRequest, AuthUserListResponse, AuthUserRevokeRoleRequest,
    AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse, ResponseHeader,
};
use tonic::{Request, Response, Status};

use super::admin_errors::AdminRefusal;
use super::context::Context;
use super::unavailable;

/// The revision of users and roles before the first change of any.
const AUTH_REVISION: u64 = 1;
/// What bcrypt takes, in bytes.
const PASSWORD_LEN_MAX: usize = 72;

/// Answers as long as nobody can be authenticated.
pub(crate) struct AuthService {
    context: Context,
}

impl AuthService {
    pub(crate) fn new(context: Context) -> Self {
        Self { context }
    }

    /// Waits until what this member knows is what the cluster knows.
    async fn header(&self) -> Result<Option<ResponseHeader>, Status> {
        self.context.check_not_learner()?;
        self.context.linearize().await?;
        Ok(Some(self.context.header(self.context.handle().view().current_revision())))
    }

    /// Refuses, once the cluster could have answered.
    async fn refuse<T>(&self, refusal: AdminRefusal) -> Result<Response<T>, Status> {
        self.header().await?;
        Err(refusal.into())
    }
}

/// For what etcd stores even before authentication is enabled.
fn not_stored<T>(what: &str) -> Result<Response<T>, Status> {
    Err(unavailable(&format!("adding {what}, and with it authentication,")))
}

fn check_password(password: &str) -> Result<(), AdminRefusal> {
    if password.len() > PASSWORD_LEN_MAX { Err(AdminRefusal::PasswordTooLong) } else { Ok(()) }
}

/// Whether a permission on these keys is one: an end of `\0` is everything from `key` on.
fn is_range(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || key < range_end || range_end == b"\0")
}

#[tonic::async_trait]
impl Auth for AuthService {
    async fn auth_enable(
        &self,
        _: Request<AuthEnableRequest>,
    ) -> Result<Response<AuthEnableResponse>, Status> {
        self.refuse(AdminRefusal::RootUserNotFound).await
    }

    async fn auth_disable(
        &self,
        _: Request<AuthDisableRequest>,
    ) -> Result<Response<AuthDisableResponse>, Status> {
        Ok(Response::new(AuthDisableResponse { header: self.header().await? }))
    }

    async fn auth_status(
        &self,
        _: Request<AuthStatusRequest>,
    ) -> Result<Response<AuthStatusResponse>, Status> {
        let header = self.header().await?;
        let auth_revision = AUTH_REVISION;
        Ok(Response::new(AuthStatusResponse { header, enabled: false, auth_revision }))
    }

    async fn authenticate(
        &self,
        _: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        self.refuse(AdminRefusal::AuthNotEnabled).await
    }

    async fn user_add(
        &self,
        request: Request<AuthUserAddRequest>,
    ) -> Result<Response<AuthUserAddResponse>, Status> {
        let request = request.into_inner();
        if !request.options.is_some_and(|options| options.no_password) {
            check_password(&request.password)?;
        }
        if request.name.is_empty() {
            return self.refuse(AdminRefusal::UserEmpty).await;
        }
        not_stored("a user")
    }

    async fn user_get(
        &self,
        _: Request<AuthUserGetRequest>,
    ) -> Result<Response<AuthUserGetResponse>, Status> {
        self.refuse(AdminRefusal::UserNotFound).await
    }

    async fn user_list(
        &self,
        _: Request<AuthUserListRequest>,
    ) -> Result<Response<AuthUserListResponse>, Status> {
        let header = self.header().await?;
        Ok(Response::new(AuthUserListResponse { header, users: Vec::new() }))
    }

    async fn user_delete(
        &self,
        _: Request<AuthUserDeleteRequest>,
    ) -> Result<Response<AuthUserDeleteResponse>, Status> {
        self.refuse(AdminRefusal::UserNotFound).await
    }

    async fn user_change_password(
        &self,
        request: Request<AuthUserChangePasswordRequest>,
    ) -> Result<Response<AuthUserChangePasswordResponse>, Status> {
        check_password(&request.get_ref().password)?;
        self.refuse(AdminRefusal::UserNotFound).await
    }

    async fn user_grant_role(
        &self,
        _: Request<AuthUserGrantRoleRequest>,
    ) -> Result<Response<AuthUserGrantRoleResponse>, Status> {
        self.refuse(AdminRefusal::UserNotFound).await
    }

    async fn user_revoke_role(
        &self,
        _: Request<AuthUserRevokeRoleRequest>,
    ) -> Result<Response<AuthUserRevokeRoleResponse>, Status> {
        self.refuse(AdminRefusal::UserNotFound).await
    }

    async fn role_add(
        &self,
        request: Request<AuthRoleAddRequest>,
    ) -> Result<Response<AuthRoleAddResponse>, Status> {
        if request.get_ref().name.is_empty() {
            return self.refuse(AdminRefusal::RoleEmpty).await;
        }
        not_stored("a role")
    }

    async fn role_get(
        &self,
        _: Request<AuthRoleGetRequest>,
    ) -> Result<Response<AuthRoleGetResponse>, Status> {
        self.refuse(AdminRefusal::RoleNotFound).await
    }

    async fn role_list(
        &self,
        _: Request<AuthRoleListRequest>,
    ) -> Result<Response<AuthRoleListResponse>, Status> {
        let header = self.header().await?;
        Ok(Response::new(AuthRoleListResponse { header, roles: Vec::new() }))
    }

    async fn role_delete(
        &self,
        _: Request<AuthRoleDeleteRequest>,
    ) -> Result<Response<AuthRoleDeleteResponse>, Status> {
        self.refuse(AdminRefusal::RoleNotFound).await
    }

    async fn role_grant_permission(
        &self,
        request: Request<AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<AuthRoleGrantPermissionResponse>, Status> {
        let refusal = match request.into_inner().perm {
            None => AdminRefusal::PermissionNotGiven,
            Some(perm) if !is_range(&perm.key, &perm.range_end) => {
                AdminRefusal::InvalidAuthManagement
            }
            Some(_) => AdminRefusal::RoleNotFound,
        };
        self.refuse(refusal).await
    }

    async fn role_revoke_permission(
        &self,
        _: Request<AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<AuthRoleRevokePermissionResponse>, Status> {
        self.refuse(AdminRefusal::RoleNotFound).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_for_keys_in_order_or_up_to_the_end() {
        // Read from etcd 3.7.3: what is no range is "invalid auth management".
        for (key, end, expected) in [
            ("a", "", true),
            ("a", "b", true),
            ("b", "\0", true),
            ("a", "a", false),
            ("b", "a", false),
            ("", "a", false),
            ("", "\0", false),
        ] {
            assert_eq!(is_range(key.as_bytes(), end.as_bytes()), expected, "{key:?} {end:?}");
        }
    }
}
