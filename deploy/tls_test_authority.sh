#!/bin/sh
# A certificate authority for trying TLS out, and certificates of it. It is no authority for a hospital: its key lies beside it, unprotected.
#
#   deploy/tls_test_authority.sh FOLDER NAME[,HOST...] ...
#
# makes FOLDER/authority.pem and .key, unless they are there, and for each NAME FOLDER/NAME.pem and .key: for the host names and addresses
# that stand behind it (without any: NAME), for server and client alike, with a key of the curve P-256. DAYS=90 is how long they are good for.
set -eu
umask 077

[ $# -ge 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
folder=$1
shift
days=${DAYS:-90}
mkdir -p "$folder"
cd "$folder"

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

if [ ! -e authority.pem ]; then
    new_key authority.key
    openssl req -x509 -new -key authority.key -days "$days" -subj "/CN=Fourview test authority" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign -out authority.pem
fi

for one in "$@"; do
    name=${one%%,*}
    hosts=${one#"$name"}
    names=
    for host in $(printf %s "${hosts:-,$name}" | tr , ' '); do
        case $host in
            *[!0-9.]*) case $host in *:*) kind=IP ;; *) kind=DNS ;; esac ;;
            *) kind=IP ;;
        esac
        names="$names${names:+,}$kind:$host"
    done
    new_key "$name.key"
    printf '%s\n' "subjectAltName=$names" basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature \
        extendedKeyUsage=serverAuth,clientAuth >"$name.ext"
    openssl req -new -key "$name.key" -subj "/CN=$name" -out "$name.csr"
    openssl x509 -req -in "$name.csr" -CA authority.pem -CAkey authority.key -CAcreateserial -days "$days" -extfile "$name.ext" \
        -out "$name.pem" 2>/dev/null
    rm "$name.ext" "$name.csr"
    echo "$folder/$name.pem and $name.key: $names, $days days"
done
