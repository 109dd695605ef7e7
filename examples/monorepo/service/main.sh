. /srv/service/.env
. /srv/library/greet.sh
greet "a service"
ls -A /srv/service /srv/library
