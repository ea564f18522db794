-- The service's own role: it owns its database, and is no superuser.
\getenv password SERVICE_PASSWORD
CREATE ROLE viewingtime LOGIN PASSWORD :'password';
ALTER DATABASE viewingtime OWNER TO viewingtime;
