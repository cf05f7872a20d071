# bash completion of dsdb and dsdbd

_dsdbd() {
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
	case $before in
	-config | --config | -pidfile | --pidfile | segment | wal | meta)
		mapfile -t COMPREPLY < <(compgen -f -- "$word")
		return
		;;
	inspect)
		mapfile -t COMPREPLY < <(compgen -W "segment wal meta" -- "$word")
		return
		;;
	esac
	if [ "$COMP_CWORD" = 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "run config recover inspect version -config -join -hostname -replace -pidfile" -- "$word")
	else
		mapfile -t COMPREPLY < <(compgen -W "-config -join -hostname -replace -pidfile" -- "$word")
	fi
}

_dsdb() {
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
	case $before in
	-format) mapfile -t COMPREPLY < <(compgen -W "column csv json line" -- "$word") ;;
	-precision) mapfile -t COMPREPLY < <(compgen -W "rfc3339 h m s ms u ns" -- "$word") ;;
	-consistency) mapfile -t COMPREPLY < <(compgen -W "any one quorum all" -- "$word") ;;
	-path) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
	-host) mapfile -t COMPREPLY < <(compgen -A hostname -- "$word") ;;
	*) mapfile -t COMPREPLY < <(compgen -W "-host -port -username -password -database -ssl -unsafeSsl -format -precision -consistency -pretty -execute -import -path -compressed -pps -version" -- "$word") ;;
	esac
}

complete -F _dsdbd dsdbd influxd
complete -F _dsdb dsdb influx
