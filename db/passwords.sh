#!/bin/bash
# Gives the users of init.sql the passwords of the environment, and unlocks them. The mysql image runs it after init.sql.
set -eu
for user in orchestrator service_a service_b service_c; do
  variable=$(printf '%s_DB_PASSWORD' "$user" | tr '[:lower:]' '[:upper:]')
  password=${!variable:?"set it in .env"}
  case $password in *[\'\\]*) echo "$variable must hold neither quotes nor backslashes" >&2; exit 1 ;; esac
  MYSQL_PWD=$MYSQL_ROOT_PASSWORD mysql --user=root --execute="ALTER USER $user IDENTIFIED BY '$password' ACCOUNT UNLOCK"
done
